"""The gateway as several processes on one listening socket: `AXIOM_GATEWAY_PROCESSES`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.data import build
from tests.end_to_end.test_gateway_process import GatewayProcess, is_staging, received, store
from tests.gateway import A_ABORT, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, RawPeer
from tests.peers import free_port
from tests.running import wait_until

PLACES = 3


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path / "home", AXIOM_GATEWAY_PROCESSES="2")
    yield process
    process.stop()


def workers(gateway: GatewayProcess) -> list[int]:
    pid = gateway.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> Callable[[], bool]:
    def gone() -> bool:
        try:
            # A child of ours that nobody waited for counts as gone too.
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return gone


def limited(gateway: GatewayProcess) -> int:
    """The port of a listener that has a few places; it listens."""
    port = free_port()
    entity = {"name": "few", "ae_title": "FEW", "port": port, "max_associations": PLACES}
    gateway.ports.configuration.create("listeners", entity, by="test")

    def listens() -> bool:
        try:
            RawPeer(port).close()
        except ConnectionRefusedError:
            return False
        return True

    wait_until(listens)
    return port


def gets_in(port: int, stack: ExitStack) -> RawPeer | None:
    peer = stack.enter_context(RawPeer(port))
    kind, _ = peer.associate(called="FEW")
    assert kind in (A_ASSOCIATE_AC, A_ASSOCIATE_RJ)
    return peer if kind == A_ASSOCIATE_AC else None


def gets_in_by_now(port: int, stack: ExitStack) -> bool:
    """False too where nobody accepted: workers that were just started need a while."""
    try:
        return gets_in(port, stack) is not None
    except OSError:
        return False


def test_they_keep_the_limit_of_a_listener_together(gateway: GatewayProcess) -> None:
    """What a worker that was killed had is free again; with who started them they all end."""
    port = limited(gateway)
    with ExitStack() as stack:
        peers = [gets_in(port, stack) for _ in range(PLACES)]
        assert None not in peers
        for _ in range(2 * PLACES):
            assert gets_in(port, stack) is None
        first = peers[0]
        assert first is not None
        first.release()
        assert gets_in(port, stack) is not None
        assert gets_in(port, stack) is None

        before = workers(gateway)
        assert len(before) == 2
        for pid in before:
            # One after the other: there is always one that takes associations.
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(set(workers(gateway)) - set(before)) == 1 + before.index(pid))  # noqa: B023
        wait_until(lambda: gets_in_by_now(port, stack), 60.0)

    pids = workers(gateway)
    gateway.process.kill()
    gateway.process.wait()
    wait_until(lambda: all(is_gone(pid)() for pid in pids))


def test_what_they_acknowledge_is_safe_when_they_are_all_killed(gateway: GatewayProcess) -> None:
    """Without a worker the gateway ends, so that whoever watches it starts it again."""
    with ExitStack() as stack:
        for i in range(4):
            peer = stack.enter_context(RawPeer(gateway.port))
            peer.associate()
            peer.send(store(build.ct(instance=f"{i}"), instance=f"{i}"))
            assert peer.receive_status() == 0
        # It is not to find one of them dead and start another meanwhile.
        gateway.process.send_signal(signal.SIGSTOP)
        for pid in workers(gateway):
            os.kill(pid, signal.SIGKILL)
        gateway.process.send_signal(signal.SIGCONT)
    assert gateway.process.wait(120) == 1
    assert len(received(gateway.ports)) == 4


def test_sigterm_answers_what_has_begun_and_leaves_no_process(gateway: GatewayProcess) -> None:
    message = store(build.ct(64, 64, instance="one"), instance="one")
    pids = workers(gateway)
    with RawPeer(gateway.port) as busy, RawPeer(gateway.port) as idle:
        busy.associate()
        idle.associate()
        busy.send(message[:3000])
        wait_until(lambda: any(map(is_staging, pids)))
        gateway.process.send_signal(signal.SIGTERM)
        assert idle.receive_pdu()[0] == A_ABORT
        idle.close()
        busy.send(message[3000:])
        assert busy.receive_status() == 0
        assert busy.receive_pdu()[0] == A_ABORT
        busy.close()
        assert gateway.process.wait(120) == 0
    assert all(is_gone(pid)() for pid in pids)
    assert len(received(gateway.ports)) == 1
