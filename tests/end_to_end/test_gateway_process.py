"""The gateway as a process over the real ports: what it acknowledges is in the object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from shared import bootstrap
from shared.environment import Environment
from shared.pipeline.ports import Ports
from tests.data import build
from tests.gateway import (
    A_ABORT,
    COMMAND,
    DATA,
    LAST,
    RawPeer,
    p_data,
    pdv,
    store_rq,
)
from tests.peers import free_port
from tests.running import wait_until


class GatewayProcess:
    """`python -m scp_gateway.main` with a home of its own."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.port = free_port()
        self._log = home.with_suffix(".log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scp_gateway.main"],
            env={
                **os.environ,
                "AXIOM_HOME": str(home),
                "AXIOM_DIMSE_PORT": str(self.port),
                **settings,
            },
            stderr=self._log,
            cwd=Path(__file__).parents[2],
        )
        deadline_s = time.monotonic() + 120
        while True:
            with suppress(ConnectionRefusedError):
                RawPeer(self.port).close()
                return
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    @property
    def ports(self) -> Ports:
        """The same stores, opened by this process."""
        return bootstrap.embedded(Environment.read({"AXIOM_HOME": str(self.home)}))

    def log(self) -> str:
        return self.home.with_suffix(".log").read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path / "home")
    yield process
    process.stop()


def store(part10: bytes, *, instance: str) -> bytes:
    """A C-STORE request with its data set."""
    meta_bytes = int.from_bytes(part10[140:144], "little")
    command = store_rq(sop_class_uid=build.CT_IMAGE_STORAGE, sop_instance_uid=build.uid(instance))
    data_set = part10[144 + meta_bytes :]
    half = len(data_set) // 2
    return (
        p_data(pdv(1, COMMAND | LAST, command))
        + p_data(pdv(1, DATA, data_set[:half]))
        + p_data(pdv(1, DATA | LAST, data_set[half:]))
    )


def is_staging(pid: int) -> bool:
    """True once the process has written to a received file that has no name yet."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if "/objects/" in os.readlink(entry) and entry.stat().st_size:
                return True
    return False


def asked(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """What the health port answers."""
    answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=30)
    return answer.status_code, answer.json()


def received(ports: Ports) -> list[str]:
    """The names of the received files."""
    return list(ports.objects.list("received/"))


def test_an_instance_is_durable_and_published_when_it_is_acknowledged(
    gateway: GatewayProcess,
) -> None:
    part10 = build.ct(instance="one")
    with RawPeer(gateway.port) as peer:
        peer.associate()
        peer.send(store(part10, instance="one"))
        assert peer.receive_status() == 0
        # No time to clean up, as in a power cut.
        gateway.process.kill()
        gateway.process.wait()
    ports = gateway.ports
    [name] = received(ports)
    with ports.objects.open(name) as reader:
        stored = reader.read_at(0, reader.size)
    meta_bytes = int.from_bytes(part10[140:144], "little")
    assert stored.endswith(part10[144 + meta_bytes :])


def test_refused_instances_leave_an_exception_and_no_object(gateway: GatewayProcess) -> None:
    with RawPeer(gateway.port) as peer:
        peer.associate()
        peer.send(store(build.ct(instance="one"), instance="another"))
        assert peer.receive_status() == 0xA900
        whole = build.ct(instance="two")
        peer.send(store(whole[: len(whole) - 200], instance="two"))
        assert peer.receive_status() == 0xC000
        peer.send(store(build.ct(instance="three"), instance="three"))
        assert peer.receive_status() == 0
        peer.release()
    assert len(received(gateway.ports)) == 1


def test_one_listener_that_cannot_listen_is_no_reason_to_start_the_others_anew(
    tmp_path: Path,
) -> None:
    """Whoever hosts it asks `/live`, and ends what does not answer 200."""
    health, secure = free_port(), free_port()
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path / "home")}))
    tls = {"certificate_secret": "no-such", "private_key_secret": "no-such"}
    secured = {
        "name": "secure",
        "port": secure,
        "tls": {**tls, "require_client_certificate": False},
    }
    ports.configuration.apply({"listeners": [secured]}, by="test")
    gateway = GatewayProcess(tmp_path / "home", AXIOM_HEALTH_PORT=str(health))
    try:
        wait_until(lambda: asked(health, "/live")[0] == 200, what="a gateway that receives")
        status, told = asked(health, "/health")
        assert status == 503
        assert told["fault"].startswith("listener secure: ")
        with RawPeer(gateway.port) as peer:
            peer.associate()
            peer.send(store(build.ct(instance="one"), instance="one"))
            assert peer.receive_status() == 0
    finally:
        gateway.stop()


def test_sigterm_answers_what_has_begun_and_ends_in_time(gateway: GatewayProcess) -> None:
    message = store(build.ct(64, 64, instance="one"), instance="one")
    with RawPeer(gateway.port) as busy, RawPeer(gateway.port) as idle:
        busy.associate()
        idle.associate()
        busy.send(message[:3000])
        wait_until(lambda: is_staging(gateway.process.pid))
        gateway.process.send_signal(signal.SIGTERM)
        assert idle.receive_pdu()[0] == A_ABORT
        idle.close()
        busy.send(message[3000:])
        assert busy.receive_status() == 0
        assert busy.receive_pdu()[0] == A_ABORT
        busy.close()
        assert gateway.process.wait(120) == 0
    assert len(received(gateway.ports)) == 1


def test_sigterm_does_not_wait_for_a_peer_that_hangs(gateway: GatewayProcess) -> None:
    with RawPeer(gateway.port) as peer:
        peer.associate()
        peer.send(store(build.ct(64, 64, instance="one"), instance="one")[:3000])
        wait_until(lambda: is_staging(gateway.process.pid))
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(120) == 0
    assert received(gateway.ports) == []


def test_a_listener_added_to_the_configuration_listens_soon(gateway: GatewayProcess) -> None:
    port = free_port()
    entity = {"name": "second", "ae_title": "SECOND", "port": port}
    with RawPeer(gateway.port) as running:
        running.associate()
        gateway.ports.configuration.create("listeners", entity, by="test")
        deadline_s = time.monotonic() + 120
        while True:
            try:
                RawPeer(port).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        running.send(store(build.ct(instance="one"), instance="one"))
        assert running.receive_status() == 0


def test_logs_are_json_lines_without_patient_data(gateway: GatewayProcess) -> None:
    with RawPeer(gateway.port) as peer:
        peer.associate()
        peer.send(store(build.ct(instance="one", patient_id="SECRET-7"), instance="one"))
        assert peer.receive_status() == 0
        peer.release()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.wait(120)
    log = gateway.log()
    assert "SECRET-7" not in log
    assert '"stored": 1' in log
    assert '"end": "released"' in log
    assert all(line.startswith("{") for line in log.splitlines())
