"""What is deleted, and above all what is not."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.destinations.filesystem import FolderDestination
from shared.dicom.commitment import CommitmentRequest, Reference
from shared.environment import Platform
from shared.errors import ObjectMissingError, OverloadedError, StorageUnavailableError
from shared.messages import (
    DeliveryRequested,
    InstanceAccepted,
    InstanceReceived,
    Receipt,
    Source,
    Stage,
    Topic,
    encode,
)
from shared.pipeline import instance_actions, rules
from shared.pipeline.exceptions import exception_from
from shared.pipeline.housekeeping import Housekeeping
from shared.pipeline.instance_records import receipt_of
from shared.pipeline.retention import Cleaner
from shared.ports import Outgoing
from shared.standardize.chain import Chain, Link
from shared.standardize.embedded import EmbeddedStandardizer
from shared.standardize.kept import Hits, KeptDecisions
from shared.standardize.proposals import Question
from shared.times import timestamp
from tests.data import build
from tests.embedded_system import DAY, System


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "home")
    yield system
    system.ports.destinations.close()


def validated(system: System, receipt: Receipt) -> Receipt:
    """The receipt as it was handed on."""
    found = system.ports.documents.get("instances", receipt.receipt_id)
    assert found is not None
    return receipt_of(found.data)


class TestAReceivedFile:
    def test_goes_once_it_is_delivered_and_its_time_is_over(self, system: System) -> None:
        receipt = system.receive()
        system.work()
        assert system.later(6 * DAY).files == 0
        assert system.has(receipt)
        swept = system.later(1.1 * DAY)
        assert (swept.files, swept.bytes) == (1, receipt.file.size)
        assert not system.has(receipt)
        assert len(system.delivered()) == 1

    def test_goes_at_once_where_it_need_not_be_kept(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", retention_s=0)
        receipt = system.receive()
        system.work()
        assert system.later(1).files == 1
        assert not system.has(receipt)

    def test_stays_until_every_delivery_is_confirmed(self, system: System) -> None:
        system.ports.configuration.create(
            "destinations",
            {"name": "second", "type": "filesystem", "path": "second", "enabled": False},
            by="test",
        )
        system.ports.configuration.apply(
            {"settings": {"default_route": ["primary-storage", "second"], "min_free_bytes": 0}},
            by="test",
        )
        receipt = system.receive()
        system.work()  # to one of them; the other goes to the exception log
        assert system.later(100 * DAY).kept["failed"] == 1
        assert system.has(receipt)
        (entry,) = system.ports.exceptions.list().documents
        system.ports.exceptions.discard(entry.key, by="test", reason="not wanted")
        assert system.later(DAY).files == 1

    def test_stays_while_it_waits_in_the_queue(self, system: System) -> None:
        """Its destination may be dead for longer than files are kept."""
        receipt = system.receive()
        system.work(Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)
        assert system.later(100 * DAY).kept["pending"] == 1
        system.work()
        assert len(system.delivered()) == 1
        assert system.has(receipt)

    def test_stays_while_it_waits_for_a_destination_that_was_given_up(self, tmp_path: Path) -> None:
        """A person has it sent there after all, and it is dead."""
        system = System(tmp_path / "home", default_route=[])
        for name in ("second", "third"):
            entity = {"name": name, "type": "filesystem", "path": name, "enabled": False}
            system.ports.configuration.create("destinations", entity, by="test")
        system.ports.configuration.apply(
            {"settings": {"default_route": ["second"], "min_free_bytes": 0}}, by="test"
        )
        receipt = system.receive()
        for elsewhere in ("third", "second"):
            system.work()
            (entry,) = system.ports.exceptions.list(where={"status": "open"}).documents
            system.ports.exceptions.retry(entry.key, by="test", destination=elsewhere)
        assert system.later(100 * DAY).kept["retrying"] == 1
        assert system.has(receipt)
        enabled = {"name": "second", "type": "filesystem", "path": "second"}
        system.ports.configuration.replace("destinations", "second", enabled, by="test")
        system.work()
        assert len(system.delivered()) == 1
        assert system.later(DAY).files == 1

    def test_stays_until_what_was_decided_anew_is_delivered(self, system: System) -> None:
        """What its destination has confirmed is what was decided before."""
        receipt = system.receive()
        system.work()
        set_name = {"type": "set", "tag": "StationName", "value": "CT-7"}
        ruleset = {"name": "all", "execution_mode": "ALL_MATCHES"}
        every = {"name": "every", "actions": [set_name], "storage_backends": ["primary-storage"]}
        system.ports.configuration.create("rulesets", {**ruleset, "rules": [every]}, by="test")
        rules.decide_anew(validated(system, receipt), (), system.ports, corrects=True)
        system.work(Topic.INSTANCE_ACCEPTED)
        assert system.later(100 * DAY).kept["pending"] == 1
        system.work()
        (path,) = system.delivered()
        assert b"CT-7" in path.read_bytes()
        assert system.later(DAY).files == 1

    def test_goes_though_it_was_decided_anew_and_nothing_changed(self, system: System) -> None:
        receipt = system.receive()
        system.work()
        rules.decide_anew(validated(system, receipt), (), system.ports)
        system.work(Topic.INSTANCE_ACCEPTED)
        assert system.later(100 * DAY).files == 1

    @pytest.mark.parametrize("state", ["held", "quarantined", "collecting", "released"])
    def test_stays_while_it_is(self, system: System, state: str) -> None:
        receipt = system.receive()
        system.work()
        known = system.ports.documents.get("instances", receipt.receipt_id)
        assert known is not None
        system.ports.documents.put("instances", known.key, {**known.data, "state": state})
        assert system.later(1000 * DAY).kept[state] == 1
        assert system.has(receipt)
        assert system.state(receipt) == state

    def test_stays_while_the_exception_log_has_an_open_entry(self, system: System) -> None:
        receipt = system.receive(changes={0x00100020: None})
        system.work()
        assert system.state(receipt) == "" or system.state(receipt) == "routed"
        raised = exception_from(
            ObjectMissingError("x"), stage=Stage.RULES, at=system.clock.now(), receipt=receipt
        )
        system.ports.exceptions.record(raised)
        system.later(100 * DAY)
        assert system.has(receipt)
        system.ports.exceptions.archive(raised.exception_id, by="test")
        for entry in system.ports.exceptions.list(where={"status": "open"}).documents:
            system.ports.exceptions.archive(entry.key, by="test")
        system.later(2 * DAY)
        assert not system.has(receipt)

    def test_that_was_held_and_discarded_goes_after_its_time(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", default_route=[])
        receipt = system.receive()
        system.work()
        assert system.state(receipt) == "held"
        instance_actions.discard(receipt.receipt_id, reason="test", by="test", ports=system.ports)
        system.later(8 * DAY)
        assert not system.has(receipt)

    def test_that_a_killed_clean_up_left_goes_the_next_time(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed between the mark in the document and the deletion."""
        receipt = system.receive()
        system.work()

        def killed(name: str) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(system.ports.objects, "delete", killed)
            with pytest.raises(KeyboardInterrupt):
                system.later(8 * DAY)
        assert system.has(receipt)
        assert system.later(DAY).files == 1
        assert not system.has(receipt)

    def test_that_is_gone_is_no_fault_when_a_message_comes_again(self, system: System) -> None:
        """The queue delivers at least once, and late."""
        received = system.receive()
        system.work()
        known = system.ports.documents.get("instances", received.receipt_id)
        assert known is not None
        receipt = receipt_of(known.data)  # as validation hands it on
        again = [
            Outgoing(Topic.INSTANCE_RECEIVED, encode(InstanceReceived(received))),
            Outgoing(Topic.INSTANCE_ACCEPTED, encode(InstanceAccepted(receipt))),
            Outgoing(
                Topic.DELIVERY_REQUESTED,
                encode(DeliveryRequested(receipt, "primary-storage")),
                lane="primary-storage",
            ),
        ]
        assert system.later(8 * DAY).files == 1
        system.ports.bus.publish(again)
        assert set(system.work()) == {204}
        assert system.ports.documents.count("exceptions") == 0
        assert len(system.delivered()) == 1

    def test_of_another_name_is_never_touched(self, system: System) -> None:
        with system.ports.objects.create("received/by-hand.dcm") as writer:
            writer.write(b"x")
            writer.commit()
        assert system.later(1000 * DAY).kept["not ours"] == 1
        assert list(system.ports.objects.list("received/by-hand"))


class TestAnOrphan:
    def orphan(self, system: System) -> str:
        """What a process leaves that is killed between the file and its message."""
        name = f"received/{system.clock.now():%Y%m%d/%H/%Y%m%dT%H%M%S%f}-00c0ffee.dcm"
        with system.ports.objects.create(name) as writer:
            writer.write(build.ct())
            writer.commit()
        return name

    def test_goes_after_a_day(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", retention_s=0)
        name = self.orphan(system)
        assert system.later(DAY / 2).orphans == 0
        assert list(system.ports.objects.list(name))
        assert system.later(DAY).orphans == 1
        assert not list(system.ports.objects.list(name))

    def test_is_not_what_waits_for_validation(self, system: System) -> None:
        """The stages may have been down for a week."""
        receipt = system.receive()
        assert system.later(30 * DAY).kept["undecided"] == 1
        system.work(Topic.INSTANCE_RECEIVED)
        assert system.later(30 * DAY).kept["undecided"] == 1
        assert system.has(receipt)
        system.work()
        assert len(system.delivered()) == 1

    def test_is_not_what_validation_refused(self, tmp_path: Path) -> None:
        """Nothing but the exception log knows of it: it waits for a person there."""
        system = System(tmp_path / "home", validation={"patient-id-missing": "reject"})
        receipt = system.receive(changes={0x00100020: None})
        system.work()
        assert system.state(receipt) == ""
        assert system.later(100 * DAY).orphans == 0
        (entry,) = system.ports.exceptions.list(where={"status": "open"}).documents
        lenient = {"min_free_bytes": 0, "validation": {"patient-id-missing": "warn"}}
        system.ports.configuration.apply({"settings": lenient}, by="test")
        system.clock.advance(1)
        system.ports.exceptions.retry(entry.key, by="test")
        assert system.later(DAY).orphans == 0
        assert system.has(receipt)
        system.work()
        assert system.state(receipt) == "held"

    def test_is_not_what_a_person_sends_on_after_all(self, tmp_path: Path) -> None:
        """One destination after the other refuses what validation has refused; the next is dead."""
        system = System(tmp_path / "home", validation={"patient-id-missing": "reject"})
        for name in ("second", "third"):
            entity = {"name": name, "type": "filesystem", "path": name, "enabled": False}
            system.ports.configuration.create("destinations", entity, by="test")
        receipt = system.receive(changes={0x00100020: None})
        for elsewhere in ("second", "third"):
            system.work()
            (entry,) = system.ports.exceptions.list(where={"status": "open"}).documents
            system.ports.exceptions.retry(entry.key, by="test", destination=elsewhere)
        assert system.later(100 * DAY).orphans == 0
        assert system.has(receipt)

    def test_is_not_what_is_on_its_way_to_the_exception_log(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", validation={"patient-id-missing": "reject"})
        receipt = system.receive(changes={0x00100020: None})
        system.work(Topic.INSTANCE_RECEIVED)
        assert system.later(100 * DAY).orphans == 0
        assert system.has(receipt)


class TestRecords:
    COLLECTIONS = ("instances", "deliveries", "copies")

    def counts(self, system: System) -> list[int]:
        return [system.ports.documents.count(name) for name in self.COLLECTIONS]

    def test_of_an_instance_go_together_once_its_file_is_gone(self, system: System) -> None:
        system.receive()
        system.work()
        system.later(8 * DAY)
        assert self.counts(system) == [1, 1, 1]
        system.later(90 * DAY)
        assert self.counts(system) == [0, 0, 0]

    def test_of_the_uids_that_rules_gave_go_too(self, system: System) -> None:
        uid = {"type": "new_uid", "tag": "SOPInstanceUID"}
        ruleset = {"name": "r", "rules": [{"name": "anew", "actions": [uid]}]}
        system.ports.configuration.apply({"rulesets": [ruleset]}, by="test")
        system.clock.advance(1)
        system.receive()
        system.work()
        assert system.ports.documents.count("renamed-instances") == 1
        system.later(8 * DAY)
        assert system.ports.documents.count("renamed-instances") == 1
        system.later(90 * DAY)
        assert system.ports.documents.count("renamed-instances") == 0

    def test_of_shadows_go_when_nothing_was_counted_for_so_long(self, system: System) -> None:
        ruleset = {"name": "r", "mode": "shadow", "rules": [{"name": "r", "destinations": []}]}
        system.ports.configuration.apply({"rulesets": [ruleset]}, by="test")
        system.clock.advance(1)
        system.receive()
        system.work()
        system.ports.shadows.write()
        assert system.ports.documents.count("shadow-reports") == 1
        system.later(80 * DAY)
        assert system.ports.documents.count("shadow-reports") == 1
        system.later(20 * DAY)
        assert system.ports.documents.count("shadow-reports") == 0

    def test_of_a_commitment_that_was_never_answered_go_when_nobody_works_on_it(
        self, system: System
    ) -> None:
        asked = CommitmentRequest("1.2.3", (Reference("1.2.840.10008.1.2", "1.2.4"),))
        source = Source("dimse", "main-listener", calling_ae_title="CT1")
        system.ports.commitments.request(asked, source, here_for_s=0)
        system.later(100 * DAY)
        # Its message waits still.
        assert system.ports.documents.count("commitments") == 1
        bus: Any = system.ports.bus
        [message] = bus.lease([Topic.COMMITMENT_REQUESTED], limit=10, lease_s=60)
        bus.settle(acknowledged=[message.message_id], later=[])
        system.ports.exceptions.record(
            exception_from(ObjectMissingError("a"), stage=Stage.COMMITMENT, at=system.clock.now())
        )
        system.later(DAY)
        assert system.ports.documents.count("commitments") == 1
        [entry] = system.ports.exceptions.list().documents
        system.ports.exceptions.archive(entry.key, by="test")
        system.later(DAY)
        assert system.ports.documents.count("commitments") == 0

    def test_of_terms_that_were_decided_go_and_are_decided_anew(self, system: System) -> None:
        documents, clock = system.ports.documents, system.clock
        chain = Chain([Link(EmbeddedStandardizer())])
        question = Question("BodyPartExamined", "", {"StudyDescription": "MR KNEE"})

        def decide() -> Hits:
            kept = KeptDecisions(chain, documents, lambda: timestamp(clock.now()))
            kept.decide(question)
            return kept.hits

        assert decide().made == 1
        system.later(80 * DAY)
        assert decide().stored == 1
        system.later(20 * DAY)
        assert decide().made == 1

    def test_of_a_commitment_that_may_be_answered_yet_stay(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", record_retention_s=1)
        asked = CommitmentRequest("1.2.3", (Reference("1.2.840.10008.1.2", "1.2.4"),))
        source = Source("dimse", "main-listener", calling_ae_title="CT1")
        system.ports.commitments.request(asked, source, here_for_s=0)
        system.later(3 * DAY)
        assert system.ports.documents.count("commitments") == 1

    def test_stay_where_they_are_to_be_kept(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", record_retention_s=0)
        system.receive()
        system.work()
        system.later(10_000 * DAY)
        assert self.counts(system) == [1, 1, 1]

    def test_of_what_is_held_never_go(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", default_route=[])
        receipt = system.receive()
        system.work()
        system.later(10_000 * DAY)
        assert system.has(receipt)
        assert system.state(receipt) == "held"

    def test_of_closed_exceptions_go_and_open_ones_stay(self, system: System) -> None:
        for name in ("a", "b"):
            system.ports.exceptions.record(
                exception_from(ObjectMissingError(name), stage=Stage.RULES, at=system.clock.now())
            )
        first = system.ports.exceptions.list().documents[0]
        system.clock.advance(80 * DAY)
        system.ports.exceptions.archive(first.key, by="test")
        assert system.later(20 * DAY).records == 0  # archived not so long ago
        assert system.later(80 * DAY).records == 1
        (left,) = system.ports.exceptions.list().documents
        assert left.data["status"] == "open"

    def test_of_an_archived_exception_stay_as_long_as_its_file(self, system: System) -> None:
        """It was not delivered, and nobody has given it up: what else would anybody find it by?"""
        entity = {"name": "second", "type": "filesystem", "path": "second", "enabled": False}
        system.ports.configuration.create("destinations", entity, by="test")
        routed = {"default_route": ["second"], "min_free_bytes": 0}
        system.ports.configuration.apply({"settings": routed}, by="test")
        receipt = system.receive()
        system.work()
        (entry,) = system.ports.exceptions.list().documents
        system.ports.exceptions.archive(entry.key, by="test")
        assert system.later(200 * DAY).kept["exceptions record"] == 1
        assert system.has(receipt)
        system.ports.exceptions.discard(entry.key, by="test", reason="not wanted")
        assert system.later(DAY).files == 1
        system.later(100 * DAY)
        assert not system.ports.exceptions.list().documents

    def test_of_who_did_what_go_only_if_asked_for(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", audit_retention_s=365 * DAY)
        kept = System(tmp_path / "other")
        for one in (system, kept):
            one.ports.exceptions.record(
                exception_from(ObjectMissingError("a"), stage=Stage.RULES, at=one.clock.now())
            )
            one.ports.exceptions.archive(
                one.ports.exceptions.list().documents[0].key, by="test", reason="x"
            )
            one.later(364 * DAY)
            assert one.ports.documents.count("audit") >= 1
            one.later(10 * DAY)
        assert system.ports.documents.count("audit") == 0
        assert kept.ports.documents.count("audit") >= 1

    def test_tell_what_was_cleaned_up(self, system: System) -> None:
        system.receive()
        system.work()
        system.later(8 * DAY)
        (told,) = system.ports.documents.query("clean-ups").documents
        assert told.data["files"] == 1


class TestManyThings:
    """Beyond a network each question takes a hundred times as long as the work for it."""

    def test_are_deleted_side_by_side(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system = System(tmp_path / "home", record_retention_s=10 * DAY)
        receipts = [system.receive(f"{number}") for number in range(4)]
        system.work()
        system.cleaner = Cleaner(system.ports, at_once=4)
        delete, all_there = system.ports.objects.delete, threading.Barrier(4)

        def together(name: str) -> None:
            all_there.wait(60)
            delete(name)

        monkeypatch.setattr(system.ports.objects, "delete", together)
        swept = system.later(8 * DAY)
        assert swept.files == 4
        assert swept.bytes == sum(receipt.file.size for receipt in receipts)
        system.later(8 * DAY)
        assert [system.state(receipt) for receipt in receipts] == [""] * 4

    def test_are_deleted_side_by_side_by_the_timer_of_the_cloud(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system = System(tmp_path / "home", retention_s=0)
        for number in range(16):
            system.receive(f"{number}")
        system.work()
        system.clock.advance(1)
        delete, all_there = system.ports.objects.delete, threading.Barrier(16)

        def together(name: str) -> None:
            all_there.wait(60)
            delete(name)

        monkeypatch.setattr(system.ports.objects, "delete", together)
        Housekeeping(system.ports, None, Platform.CLOUD).run()
        assert list(system.ports.objects.list("received/")) == []

    def test_that_fail_end_the_call_and_are_deleted_by_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system = System(tmp_path / "home")
        for number in range(6):
            system.receive(f"{number}")
        system.work()
        system.cleaner = Cleaner(system.ports, at_once=2)

        def unavailable(name: str) -> None:
            raise StorageUnavailableError(name)

        with monkeypatch.context() as patched:
            patched.setattr(system.ports.objects, "delete", unavailable)
            with pytest.raises(StorageUnavailableError):
                system.later(8 * DAY)
        assert system.later(DAY).files == 6

    def test_do_not_wait_for_their_turn_while_there_is_more_to_delete(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pause of five times the work is for walks that find nothing to delete."""
        system = System(tmp_path / "home", retention_s=0)
        get, clock = system.ports.documents.get, system.clock

        def slow(collection: str, key: str) -> Any:
            clock.advance(10 if collection == "instances" else 0)
            return get(collection, key)

        monkeypatch.setattr(system.ports.documents, "get", slow)
        system.receive("one")
        system.work()
        assert system.later(11).files == 1
        system.receive("two")
        system.work()
        assert system.later(11).files == 1

        system.receive("three")  # waits in the queue
        assert system.later(11).kept == {"undecided": 1}
        system.work()
        assert system.later(11).files == 0
        assert system.later(50).files == 1


class TestADestination:
    def test_keeps_for_so_many_days_what_it_is_to_keep_no_longer(self, system: System) -> None:
        """And takes it again, should it come again. What others have put there is not ours."""
        folder = {"name": "primary-storage", "type": "filesystem", "path": "primary-storage"}
        kept = {**folder, "storage_policy": {"retain_days": 30}}
        system.ports.configuration.apply({"destinations": [kept]}, by="test")
        system.receive()
        system.work()
        (path,) = system.delivered()
        others = [path.with_name("notes.txt"), path.with_name("a copy.dcm"), path.parents[1] / "x"]
        for other in others:
            other.write_bytes(path.read_bytes())
        took_it_at = system.clock.now().timestamp()
        for one in (path, *others):
            os.utime(one, (took_it_at, took_it_at))
        assert system.later(29 * DAY).expired == 0
        assert system.later(1.1 * DAY).expired == 1
        assert not path.exists()
        assert all(other.exists() for other in others)
        system.receive()
        system.work()
        assert path.exists()

    def test_has_in_the_end_what_comes_again_while_it_is_deleted(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = {"name": "primary-storage", "type": "filesystem", "path": "primary-storage"}
        kept = {**folder, "storage_policy": {"retain_days": 1}}
        system.ports.configuration.apply({"destinations": [kept]}, by="test")
        system.receive()
        system.work()
        (path,) = system.delivered()
        took_it_at = system.clock.now().timestamp()
        os.utime(path, (took_it_at, took_it_at))
        delete = FolderDestination._delete_older

        def too_late(self: FolderDestination, place: str, uid: str) -> None:
            system.receive()
            system.work(refused=True)
            delete(self, place, uid)

        monkeypatch.setattr(FolderDestination, "_delete_older", too_late)
        assert system.later(1.1 * DAY).expired == 1
        assert not path.exists()
        system.clock.advance(DAY)
        system.work()
        assert path.exists()

    def test_that_is_away_is_looked_at_another_time(self, system: System) -> None:
        system.ports.configuration.create(
            "destinations",
            {
                "name": "away",
                "type": "filesystem",
                "path": "/proc/no/such/folder",
                "storage_policy": {"retain_days": 1},
            },
            by="test",
        )
        assert system.later(2 * DAY).expired == 0


class TestAShortDisk:
    def test_has_what_may_go_deleted_before_its_time(self, tmp_path: Path) -> None:
        """Better no second copy of what is delivered than senders that are turned away."""
        system = System(tmp_path / "home")
        receipt = system.receive()
        system.work()
        waiting = system.receive("two")
        system.ports.configuration.apply(
            {"settings": {"default_route": ["primary-storage"], "min_free_bytes": 1 << 60}},
            by="test",
        )
        assert system.later(11).files == 1
        assert not system.has(receipt)
        assert system.has(waiting)

    def test_that_is_full_is_survived(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even the mark in the document can be written then."""
        system = System(tmp_path / "home")
        receipt = system.receive()
        system.work()
        system.ports.configuration.apply(
            {"settings": {"default_route": ["primary-storage"], "min_free_bytes": 1 << 60}},
            by="test",
        )

        def full(*_: Any) -> None:
            raise StorageUnavailableError("documents.db: database or disk is full")

        monkeypatch.setattr(system.ports.documents, "replace", full)
        monkeypatch.setattr(system.ports.documents, "create", full)
        assert system.later(11).files == 1
        assert not system.has(receipt)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_disk_fills_up_and_reception_recovers(small_disk: Path, tmp_path: Path) -> None:
    """Everything that was acknowledged is delivered, and senders get in again by themselves."""
    system = System(small_disk / "home")
    system.ports.configuration.apply(
        {
            "destinations": [
                {"name": "elsewhere", "type": "filesystem", "path": str(tmp_path / "elsewhere")}
            ],
            "settings": {"default_route": ["elsewhere"], "min_free_bytes": 8 << 20},
        },
        by="test",
    )
    acknowledged = refused = 0
    for round_ in range(6):
        for number in range(40):
            system.clock.advance(0.25)
            try:
                system.receive(f"{round_}-{number}", rows=512, columns=512)
            except (OverloadedError, StorageUnavailableError):
                refused += 1
            else:
                acknowledged += 1
        system.clock.advance(2)
        system.work()
        system.later(11)
    assert refused > 0, "the disk never was short: the test tests nothing"
    assert len(list((tmp_path / "elsewhere").rglob("*.dcm"))) == acknowledged > 100
    system.receive("last")
