"""Death at every named place: what was acknowledged arrives, and once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import cast

import pytest

from functions.apply_rules.main import apply_rules
from functions.deliver_instance.main import deliver_in_steps, deliver_instance
from functions.record_exception.main import record_exception
from functions.validate_instance.main import validate_instance
from shared import bootstrap, crash_points
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.runner import Handler, Runner
from shared.dicom.commitment import CommitmentReport, CommitmentRequest, Reference
from shared.environment import Environment
from shared.messages import Source, Topic
from shared.pipeline.commitment import Due
from shared.pipeline.ports import Ports
from shared.pipeline.push import MESSAGE_ID_HEADER, PushRequest, PushResponse
from tests.data import build
from tests.embedded_system import DAY, System
from tests.running import wait_until

EntryPoint = Callable[[PushRequest], PushResponse]

ENTRY_POINTS: dict[str, EntryPoint] = {
    Topic.INSTANCE_RECEIVED: cast(EntryPoint, validate_instance),
    Topic.INSTANCE_ACCEPTED: cast(EntryPoint, apply_rules),
    Topic.DELIVERY_REQUESTED: cast(EntryPoint, deliver_instance),
    Topic.EXCEPTION_RAISED: cast(EntryPoint, record_exception),
}
IN_THE_PIPELINE = (
    crash_points.AFTER_COMMIT,
    crash_points.AFTER_PUBLISH,
    crash_points.AFTER_DECISION,
    crash_points.AFTER_STAGE,
    crash_points.AFTER_CLAIM,
    crash_points.AFTER_SEND,
    crash_points.AFTER_RECORD,
)
# Where a process dies that commits together what it has written for several messages.
IN_A_BATCH = (
    crash_points.AFTER_DECISION,
    crash_points.AFTER_STAGE,
    crash_points.AFTER_CLAIM,
    crash_points.AFTER_SEND,
    crash_points.AFTER_RECORD,
    crash_points.AFTER_DOCUMENTS,
)
RULESET = {
    "name": "r",
    "rules": [
        {
            "name": "ct",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
            "actions": [{"type": "set", "tag": "SeriesDescription", "value": "CHANGED"}],
            "storage_backends": ["primary-storage"],
        }
    ],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose rules change what comes."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path))
    bootstrap.from_environment.cache_clear()
    first = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    settings = {"default_route": ["primary-storage"], "min_free_bytes": 0}
    first.configuration.apply({"settings": settings, "rulesets": [RULESET]}, by="test")
    yield tmp_path
    bootstrap.from_environment.cache_clear()


def dies_at(name: str, work: Callable[[], object]) -> None:
    """Run `work` in a process of its own, which must die at that place and not return."""
    child = os.fork()
    if child == 0:
        crash_points._points = {name: 1.0}
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def send(ports: Ports, instance: str = "one") -> None:
    """Returning is what the sender is answered after."""
    with ports.receiver.begin(Source("dimse", "main", calling_ae_title="CT1")) as staging:
        staging.write(build.ct(instance=instance))
        staging.commit()


def pump(ports: Ports) -> None:
    """Hand every message to its entry point until the queue is empty."""
    bus = ports.bus
    assert isinstance(bus, SqliteMessageBus)
    bus.reclaim()
    while leased := bus.lease(list(ENTRY_POINTS), limit=1, lease_s=60):
        request = PushRequest(leased[0].data, {MESSAGE_ID_HEADER: str(leased[0].message_id)})
        assert ENTRY_POINTS[leased[0].topic](request)[1] == 204
        bus.settle(acknowledged=[leased[0].message_id])


def run(ports: Ports) -> None:
    """Work off the queue as the processes of the embedded mode do."""
    bus, documents = ports.bus, ports.documents
    assert isinstance(bus, SqliteMessageBus)
    assert isinstance(documents, SqliteDocumentStore)
    bus.reclaim()
    handlers: dict[str, Handler] = {
        **ENTRY_POINTS,
        Topic.DELIVERY_REQUESTED: cast(Handler, deliver_in_steps),
    }
    runner = Runner(
        bus,
        handlers,
        ports.clock,
        documents=documents,
        deferred=[Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED, Topic.DELIVERY_REQUESTED],
        at_once=[Topic.INSTANCE_ACCEPTED],
    )
    until = Event()
    thread = Thread(target=runner.run, args=(until,))
    thread.start()
    wait_until(lambda: not bus.depth(), what="an empty queue", every_s=0.02)
    until.set()
    thread.join()


def send_and_pump() -> None:
    ports = bootstrap.from_environment()
    send(ports)
    pump(ports)


@pytest.mark.parametrize("name", IN_THE_PIPELINE)
def test_an_instance_arrives_once_wherever_a_process_dies(home: Path, name: str) -> None:
    dies_at(name, send_and_pump)
    ports = bootstrap.from_environment()
    pump(ports)
    stored = home / "storage" / "primary-storage"
    was_answered = name not in (crash_points.AFTER_COMMIT, crash_points.AFTER_PUBLISH)
    if was_answered:
        assert len(list(stored.rglob("*.dcm"))) == 1
    # A sender that got no answer sends again; one that got it may.
    send(ports)
    pump(ports)
    assert len(list(stored.rglob("*.dcm"))) == 1
    assert ports.documents.count("exceptions") == 0


@pytest.mark.parametrize("name", IN_A_BATCH)
def test_instances_arrive_once_wherever_a_batch_dies(home: Path, name: str) -> None:
    def send_and_run() -> None:
        ports = bootstrap.from_environment()
        for instance in ("one", "two", "three"):
            send(ports, instance)
        run(ports)

    dies_at(name, send_and_run)
    ports = bootstrap.from_environment()
    run(ports)
    stored = home / "storage" / "primary-storage"
    assert len(list(stored.rglob("*.dcm"))) == 3
    for instance in ("one", "two", "three"):
        send(ports, instance)
    run(ports)
    assert len(list(stored.rglob("*.dcm"))) == 3
    assert ports.documents.count("exceptions") == 0


def test_a_change_of_the_configuration_applies_whole_or_not_at_all(home: Path) -> None:
    def change() -> None:
        ports = bootstrap.from_environment()
        ports.configuration.apply({"rulesets": []}, by="test")

    before = bootstrap.embedded(Environment.read()).configuration.export()
    dies_at(crash_points.AFTER_CONFIGURATION_OBJECT, change)
    after = bootstrap.from_environment().configuration
    assert after.export() == before
    after.apply({"rulesets": []}, by="test")
    assert after.export()["rulesets"] == []


class TestACleanUp:
    """What is deleted is deleted whole in the end, and nothing else with it."""

    @pytest.mark.parametrize("name", [crash_points.AFTER_MARK, crash_points.AFTER_DELETE])
    def test_that_dies_goes_on_the_next_time(self, tmp_path: Path, name: str) -> None:
        def clean_up() -> None:
            system = System(tmp_path)
            system.receive("delivered")
            system.work()
            system.receive("waiting")
            system.later(8 * DAY)

        dies_at(name, clean_up)
        system = System(tmp_path)
        assert system.later(9 * DAY).files == (name == crash_points.AFTER_MARK)
        (left,) = system.ports.objects.list("received/")
        system.work()
        assert len(system.delivered()) == 2
        assert list(system.ports.objects.list("received/")) == [left]
        assert system.ports.documents.count("exceptions") == 0

    def test_forgets_an_instance_of_which_it_forgot_a_part(self, tmp_path: Path) -> None:
        def clean_up() -> None:
            system = System(tmp_path)
            system.receive()
            system.work()
            system.later(8 * DAY)
            system.later(90 * DAY)

        dies_at(crash_points.AFTER_DELIVERIES, clean_up)
        system = System(tmp_path)
        assert system.ports.documents.count("instances") == 1
        system.later(99 * DAY)
        for collection in ("instances", "deliveries", "copies"):
            assert system.ports.documents.count(collection) == 0
        assert len(system.delivered()) == 1

    def test_that_dies_leaves_no_orphan_for_good(self, tmp_path: Path) -> None:
        def receive() -> None:
            System(tmp_path).receive()

        def clean_up() -> None:
            System(tmp_path).later(8 * DAY)

        dies_at(crash_points.AFTER_COMMIT, receive)
        dies_at(crash_points.AFTER_DELETE, clean_up)
        assert not list(System(tmp_path).ports.objects.list("received/"))


class TestStorageCommitment:
    """Whoever asks is told, whatever dies; twice the same if it must be."""

    REQUEST = CommitmentRequest("1.2.9", (Reference(build.CT_IMAGE_STORAGE, build.uid("one")),))
    PEER = Source("dimse", "test", calling_ae_title="CT1", called_ae_title="AXIOM")

    def system(self, home: Path) -> System:
        """A system that knows where CT1 listens, and notes what it tells it in a file."""

        def tell(due: Due) -> None:
            with (home / "told").open("a") as told:
                told.write(f"{due.report.transaction_uid} {len(due.report.committed)}\n")

        system = System(home)
        peer = {"host": "127.0.0.1", "port": 11112}
        entity = {"name": "test", "port": 11999, "commitment_peers": {"CT1": peer}}
        system.ports.configuration.apply({"listeners": [entity]}, by="test")
        system.ports = replace(system.ports, report_commitment=tell)
        return system

    def ask(self, home: Path) -> None:
        system = self.system(home)
        system.receive("one")
        system.work()
        system.ports.commitments.request(self.REQUEST, self.PEER, here_for_s=0)
        system.work()

    @pytest.mark.parametrize(
        "name",
        [
            crash_points.AFTER_REQUEST,
            crash_points.AFTER_REQUEST_PUBLISHED,
            crash_points.AFTER_REPORT,
        ],
    )
    def test_is_reported_wherever_a_process_dies(self, tmp_path: Path, name: str) -> None:
        dies_at(name, lambda: self.ask(tmp_path))
        system = self.system(tmp_path)
        system.clock.advance(70)
        was_answered = name == crash_points.AFTER_REPORT
        if not was_answered:
            system.ports.commitments.request(self.REQUEST, self.PEER, here_for_s=0)
        system.work()
        told = (tmp_path / "told").read_text().splitlines()
        assert told == ["1.2.9 1"] * (2 if was_answered else 1)
        (request,) = system.ports.documents.query("commitments").documents
        assert request.data["finished_at"]
        assert system.ports.documents.count("exceptions") == 0

    def test_is_reported_soon_if_the_clock_was_set_back(self, tmp_path: Path) -> None:
        system = self.system(tmp_path)
        system.receive("one")
        system.work()
        system.clock.set_wall_clock(6 * 3600)
        system.ports.commitments.request(self.REQUEST, self.PEER, here_for_s=60)
        system.clock.set_wall_clock(-6 * 3600)
        system.work()
        assert (tmp_path / "told").read_text() == "1.2.9 1\n"

    def test_is_reported_soon_if_the_clock_was_wrong_when_the_association_ended(
        self, tmp_path: Path
    ) -> None:
        system = self.system(tmp_path)
        system.receive("one")
        system.work()
        key = system.ports.commitments.request(self.REQUEST, self.PEER, here_for_s=60)
        system.clock.set_wall_clock(6 * 3600)
        system.ports.commitments.let_go(key)
        system.clock.set_wall_clock(-6 * 3600)
        system.work()
        assert (tmp_path / "told").read_text() == "1.2.9 1\n"

    def test_of_a_destination_is_believed_once_it_is_kept(self, tmp_path: Path) -> None:
        report = CommitmentReport("1.2.9", self.REQUEST.references)

        def keep() -> None:
            self.system(tmp_path).ports.commitments.keep_report(report)

        dies_at(crash_points.AFTER_KEPT_REPORT, keep)
        commitments = self.system(tmp_path).ports.commitments
        commitments.keep_report(report)
        found = commitments.report_of("1.2.9")
        assert found is not None
        assert [one.sop_instance_uid for one in found.committed] == [build.uid("one")]
