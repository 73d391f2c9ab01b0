"""`axiom up` as a process: what it starts, restarts, and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from infra.local import heartbeat
from infra.local.part import PART_NAMES, Part
from infra.local.supervisor import Supervisor
from infra.local.terminal import CommandFailedError
from shared.environment import Environment
from tests.data import build
from tests.platforms import stow
from tests.running import ROOT, RunningAxiom, wait_until

StartAxiom = Callable[..., RunningAxiom]


def pids(running: RunningAxiom) -> dict[str, int]:
    beats = {part: heartbeat.read(running.home / "run", part) for part in PART_NAMES}
    return {part: beat.pid for part, beat in beats.items() if beat is not None}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and that nobody waited for is still there.
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def up(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """An `axiom up` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "infra.local.cli", "up", "--json"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AXIOM_HOME": str(home),
            "AXIOM_HTTP_PORT": "0",
            "AXIOM_DIMSE_PORT": "0",
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_part_lives_and_ctrl_c_ends_all_of_them(axiom_up: StartAxiom) -> None:
    running = axiom_up()
    running_pids = pids(running)
    assert set(running_pids) == set(PART_NAMES)
    forked = [pid for parent in running_pids.values() for pid in children_of(parent)]
    assert running.stop() == 0
    assert not [pid for pid in (*running_pids.values(), *forked) if is_alive(pid)]
    assert not running.addresses_file.exists()


def test_a_part_that_is_killed_is_started_again(axiom_up: StartAxiom) -> None:
    running = axiom_up()
    killed = {part: running.kill_part(part) for part in PART_NAMES}
    wait_until(lambda: not set(killed.items()) & set(pids(running).items()), 30.0, "other parts")
    wait_until(lambda: _is_healthy(running), 30.0, "health")
    for part in PART_NAMES:
        assert f"{part} ended (SIGKILL)" in running.log()


def test_all_parts_start_again_when_what_they_were_forked_from_is_killed(
    axiom_up: StartAxiom,
) -> None:
    running = axiom_up()
    old = pids(running)
    (server,) = children_of(int(running.addresses["pid"]))
    assert sorted(child for child in children_of(server)) == sorted(old.values())
    # Whatever a thread of it holds would be held in each fork for ever.
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, old.values())), what="the end of the old parts")
    wait_until(
        lambda: (
            len(pids(running)) == len(old) and not set(old.values()) & set(pids(running).values())
        ),
        what="other parts",
    )
    wait_until(lambda: _is_healthy(running), what="health")


def test_nothing_outlives_a_supervisor_that_is_killed(axiom_up: StartAxiom) -> None:
    """What it leaves behind would hold the ports, and work beside its successor."""
    running = axiom_up()
    left = list(pids(running).values())
    left += [pid for parent in left for pid in children_of(parent)]
    running.kill()
    wait_until(lambda: not any(map(is_alive, left)), 10.0, "the end of all parts", 0.05)


def test_a_killed_system_starts_again_on_the_same_ports_at_once(axiom_up: StartAxiom) -> None:
    first = axiom_up()
    ports = {
        "AXIOM_HTTP_PORT": str(first.addresses["http_port"]),
        "AXIOM_DIMSE_PORT": str(first.dimse_port),
    }
    first.kill()
    second = axiom_up(first.home, **ports)
    assert second.dimse_port == first.dimse_port


def test_health_fails_while_a_part_does_not_work(axiom_up: StartAxiom) -> None:
    """Stopped, not killed: its process is there, and it does nothing."""
    running = axiom_up()
    pid = pids(running)["delivery"]
    os.kill(pid, signal.SIGSTOP)
    try:
        within_s = heartbeat.STALE_AFTER_S + 10
        wait_until(lambda: not _is_healthy(running), within_s, "health to fail")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: _is_healthy(running), 10.0, "health")


def test_several_processes_validate_and_apply_rules_and_any_of_them_is_enough(
    axiom_up: StartAxiom,
) -> None:
    running = axiom_up(AXIOM_STAGE_PROCESSES="2")
    assert {"stages", "stages-2"} <= set(running.addresses["parts"])
    assert running.request("GET", "/health").json()["checks"].keys() >= {"stages", "stages-2"}
    first = pids(running)["stages"]
    os.kill(first, signal.SIGSTOP)
    try:
        answer = stow(running, build.ct())
        assert answer.status_code == 200
        wait_until(
            lambda: running.get_all("/api/v1/deliveries", state="delivered"), what="delivery"
        )
    finally:
        os.kill(first, signal.SIGCONT)


def test_health_says_which_listener_cannot_listen_and_all_else_goes_on(
    axiom_up: StartAxiom,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = axiom_up()
        running.configure(
            listeners=[
                {"name": "taken", "ae_title": "TAKEN", "port": port},
                {"name": "main", "ae_title": "AXIOM", "port": running.dimse_port},
            ]
        )
        wait_until(lambda: not _is_healthy(running), what="health to fail")
        answer = running.request("GET", "/health/dicom-processing")
        assert answer.status_code == 503
        detail = answer.json()["checks"]["listeners"]["detail"]
        assert detail.startswith(f"gateway: listener taken: 127.0.0.1:{port}: ")
        assert running.request("GET", "/ready").status_code == 200
    # It is tried again.
    wait_until(lambda: _is_healthy(running), what="health")


def test_a_home_has_one_system(axiom_up: StartAxiom) -> None:
    running = axiom_up()
    second = up(running.home)
    error = json.loads(second.stdout)["error"]
    assert (second.returncode, error["code"]) == (1, "home-in-use")
    assert str(running.addresses["pid"]) in error["message"]
    assert _is_healthy(running)


def test_a_port_in_use_names_the_setting_and_starts_nothing(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = up(home, AXIOM_DIMSE_PORT=str(taken.getsockname()[1]))
    error = json.loads(refused.stdout)["error"]
    assert (refused.returncode, error["code"]) == (1, "port-in-use")
    assert "AXIOM_DIMSE_PORT" in error["hint"]
    assert not list((home / "run").glob("*.json"))


def test_the_admin_key_is_shown_once_and_works(home: Path) -> None:
    for start in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.local.cli", "up", "--json"],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if k != "AXIOM_API_KEY"},
                "PYTHONPATH": str(ROOT),
                "AXIOM_HOME": str(home),
                "AXIOM_HTTP_PORT": "0",
                "AXIOM_DIMSE_PORT": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, b"}\n")
            told = json.loads(b"".join(lines) + b"}")
            if start == 0:
                key = told["api_key"]
            else:
                assert told["api_key"] is None
            answer = requests.get(
                f"{told['url']}/api/v1/config",
                headers={"Authorization": f"Api-Key {key}"},
                timeout=30,
            )
            assert answer.status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


class TestSupervisor:
    """Without a command line, over parts that misbehave."""

    def test_a_part_that_ends_while_it_starts_is_named(self, home: Path) -> None:
        supervisor = self._supervisor(home, "tests.data.no_such_module")
        supervisor.start()
        try:
            with pytest.raises(CommandFailedError, match="stages did not start"):
                supervisor.wait_until_ready()
        finally:
            supervisor.stop()

    def test_a_part_that_is_killed_while_it_starts_is_started_again(self, home: Path) -> None:
        """By a message that is too much for it, say: reception is not to stay down for that."""
        told: list[str] = []
        supervisor = self._supervisor(home, "tests.data.part_that_dies_once", tell=told.append)
        supervisor.start()
        try:
            supervisor.wait_until_ready(lambda: not (home / "run" / "second-life").exists())
        finally:
            supervisor.stop()
        assert told == ["stages ended (SIGKILL); starting it again"]

    def test_a_part_that_ends_again_and_again_is_started_ever_later(self, home: Path) -> None:
        told: list[str] = []
        supervisor = self._supervisor(home, "tests.data.no_such_module", tell=told.append)
        supervisor.start()
        try:
            began_s = time.monotonic()
            supervisor.run(lambda: len(told) < 4)
            ended_s = time.monotonic()
        finally:
            supervisor.stop()
        assert ended_s - began_s >= 1.4  # 0.2, 0.4 and 0.8 s, and what each start takes

    def test_a_part_that_does_not_want_to_stop_is_killed(self, home: Path) -> None:
        supervisor = self._supervisor(home, "tests.data.stubborn_part")
        supervisor.start()
        wait_until(lambda: (home / "run" / "stubborn").exists(), 20.0, "the part")
        pid = supervisor.pid("stages")
        assert pid is not None
        supervisor.stop(within_s=1.0)
        assert not is_alive(pid)

    def test_a_part_that_hangs_is_ended_and_started_again(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("infra.local.supervisor._HUNG_AFTER_S", 4.0)
        monkeypatch.setattr("infra.local.supervisor._HUNG_FOR_CERTAIN_AFTER_S", 0.5)
        told: list[str] = []
        supervisor = self._supervisor(home, "tests.data.stubborn_part", tell=told.append)
        supervisor.start()
        try:
            wait_until(lambda: (home / "run" / "stubborn").exists(), 20.0, "the part")
            hung = supervisor.pid("stages")
            assert hung is not None
            os.kill(hung, signal.SIGSTOP)
            deadline_s = time.monotonic() + 60
            supervisor.run(lambda: len(told) < 2 and time.monotonic() < deadline_s)
            supervisor.run(
                lambda: supervisor.pid("stages") in (None, hung) and time.monotonic() < deadline_s
            )
            assert supervisor.pid("stages") not in (None, hung)
        finally:
            supervisor.stop(within_s=1.0)
        assert told[:2] == [
            "stages hangs; ending it",
            "stages ended (SIGKILL); starting it again",
        ]

    def test_a_hurry_kills_at_once(self, home: Path) -> None:
        """The second Ctrl-C."""
        supervisor = self._supervisor(home, "tests.data.stubborn_part")
        supervisor.start()
        wait_until(lambda: (home / "run" / "stubborn").exists(), 20.0, "the part")
        supervisor.stop(within_s=3600.0, hurry=lambda: True)

    @staticmethod
    def _supervisor(
        home: Path, module: str, tell: Callable[[str], None] = lambda _: None
    ) -> Supervisor:
        environment = replace(Environment.read({}), home=home, http_port=0, dimse_port=0)
        output = (home.parent / "log").open("ab")
        return Supervisor(environment, output=output, tell=tell, parts=[Part("stages", module, 1)])


def _is_healthy(running: RunningAxiom) -> bool:
    try:
        return requests.get(f"{running.url}/health", timeout=60).status_code == 200
    except (requests.RequestException, FileNotFoundError):
        return False
