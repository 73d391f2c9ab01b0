"""Equal bytes are delivered once; other bytes under the same SOP Instance UID by the policy."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import Leased
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    CopyInFlightError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
)
from shared.messages import DeliveryRequested, Topic, decode
from shared.pipeline import copies, deliver
from shared.pipeline.copies import Claimed, Conflict, Copies, Copy, Present, Superseded
from shared.ports import Outgoing
from tests.data import build
from tests.embedded_system import System as EmbeddedSystem
from tests.fakes import FakeClock
from tests.unit.operating import System, running_system

# Implementation Class UID (0002,0012), without how it begins.
_WRITER = b"25.269652034755286697543270141894512781021"
FIRST, OTHER = build.ct(), build.ct(patient_id="SOMEBODY-ELSE")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


def change_patient_id(system: System) -> None:
    rule = {
        "name": "ct",
        "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
        "actions": [{"type": "set", "tag": "PatientID", "value": "CHANGED"}],
        "destinations": ["pacs"],
    }
    system.ports.configuration.create("rulesets", {"name": "r", "rules": [rule]}, by="test")


class TestEqualBytesAgain:
    def test_are_not_sent_to_a_destination_that_has_confirmed_them(self, system: System) -> None:
        first, again = system.receive(FIRST), system.receive(FIRST)
        system.pump()
        assert len(system.peers["pacs"].sent) == 1
        assert [system.delivery(r)["state"] for r in (first, again)] == ["delivered"] * 2
        assert first.receipt_id in system.delivery(again)["answer"]
        assert not system.entries()

    def test_are_those_that_differ_in_file_meta_or_padding_alone(self, system: System) -> None:
        """Another AE sent it, or by way of a tool that pads files."""
        padding = b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0" + bytes(4)
        other = FIRST.replace(_WRITER, b"1" + _WRITER[1:]) + padding
        first, again = system.receive(FIRST), system.receive(other)
        system.pump()
        assert len(system.peers["pacs"].sent) == 1
        assert [system.delivery(r)["state"] for r in (first, again)] == ["delivered"] * 2
        assert not system.entries()

    def test_are_sent_where_the_destination_is_another_by_now(self, system: System) -> None:
        """Under the same name, but with nothing yet."""
        system.receive(FIRST)
        system.pump()
        system.ports.configuration.replace(
            "destinations",
            "pacs",
            {"name": "pacs", "type": "filesystem", "path": "elsewhere"},
            by="test",
        )
        system.receive(FIRST)
        system.pump()
        assert len(system.peers["pacs"].sent) == 2

    def test_with_the_same_changes_are_equal_whenever_these_were_made(self, system: System) -> None:
        """Original Attributes hold the time, so the bytes sent would differ each time."""
        change_patient_id(system)
        system.receive(FIRST)
        system.receive(FIRST)
        system.pump()
        assert len(system.peers["pacs"].sent) == 1
        assert not system.entries()

    def test_are_sent_anew_while_nothing_is_confirmed(self, system: System) -> None:
        peer = system.peers["pacs"]

        def refuse(_: OutgoingInstance) -> None:
            peer.before = lambda instance: None
            error = DestinationUnavailableError("pacs", "connection refused")
            error.may_be_stored = False
            raise error

        peer.before = refuse
        system.receive(FIRST)
        system.pump()
        assert [instance.redelivery for instance in peer.sent] == [False, False]

    def test_whose_answer_was_lost_are_known_as_a_redelivery(self, system: System) -> None:
        """So that a peer's 0111H, duplicate, is success then."""
        peer = system.peers["pacs"]

        def lose(_: OutgoingInstance) -> None:
            peer.after = lambda instance: None
            raise DestinationUnavailableError("pacs", "connection lost")

        peer.after = lose
        receipt = system.receive(FIRST)
        system.pump()
        assert [instance.redelivery for instance in peer.sent] == [False, True]
        assert system.delivery(receipt)["state"] == "delivered"
        assert not system.entries()

    @pytest.mark.parametrize("error", [DestinationUnavailableError, DestinationRefusedError])
    def test_stay_delivered_though_an_attempt_that_was_overtaken_fails(
        self, system: System, error: type[DestinationUnavailableError | DestinationRefusedError]
    ) -> None:
        """Its process was paused for longer than its lease, and another one has done the work and
        acknowledged the message: nobody would correct the record.
        """
        peer = system.peers["pacs"]

        def be_overtaken(_: OutgoingInstance) -> None:
            peer.before = lambda instance: None
            (message,) = system.bus.in_order([Topic.DELIVERY_REQUESTED], limit=1)
            deliver.run(decode(message.data, DeliveryRequested), system.ports)
            raise error("pacs", "connection lost")

        peer.before = be_overtaken
        receipt = system.receive(FIRST)
        statuses = []
        while found := system.step():
            statuses += found
        assert statuses == [204, 204, 204]
        assert system.delivery(receipt)["state"] == "delivered"
        assert not system.entries()

    @pytest.mark.parametrize("gives_up", [False, True])
    def test_whose_answer_was_lost_are_sent_as_they_were_then(
        self, system: System, gives_up: bool
    ) -> None:
        """With the Original Attributes of the first attempt: a destination that keeps the first and
        compares would see others in their stead, and a conflict where there is none.
        """
        change_patient_id(system)
        peer = system.peers["pacs"]
        errors: list[Exception] = [DestinationUnavailableError("pacs", "connection lost")]
        if gives_up:
            errors.append(DestinationRefusedError("pacs", "not twice"))
        arrived: list[bytes] = []

        def lose(instance: OutgoingInstance) -> None:
            arrived.append(peer.stored[instance.sop_instance_uid])
            if errors:
                raise errors.pop(0)

        peer.after = lose
        system.receive(FIRST)
        system.receive(FIRST)
        for topic in (Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED):
            handle(system, system.bus.lease([topic], limit=2, lease_s=60))
        (first,) = system.bus.lease([Topic.DELIVERY_REQUESTED], limit=1, lease_s=60)
        for _ in tuple(errors):
            system.call(first)
        system.pump()
        assert len(arrived) == 2 + gives_up
        assert len(set(arrived)) == 1
        assert b"CHANGED" in arrived[0]

    def test_that_are_certainly_not_there_are_sent_as_they_are_now(self, system: System) -> None:
        change_patient_id(system)
        peer = system.peers["pacs"]

        def refuse(_: OutgoingInstance) -> None:
            peer.before = lambda instance: None
            raise DestinationRefusedError("pacs", "not now")

        peer.before = refuse
        system.receive(FIRST)
        system.pump()
        system.receive(FIRST)
        system.pump()
        sent = [instance.header.data for instance in peer.sent]
        assert len(sent) == 2
        assert sent[0] != sent[1]


class TestOtherBytes:
    def test_are_kept_out_and_go_to_the_exception_log(self, system: System) -> None:
        system.receive(FIRST)
        system.pump()
        second = system.receive(OTHER)
        system.pump()
        assert list(system.peers["pacs"].stored.values()) == [FIRST]
        (entry,) = system.entries()
        assert (entry["code"], entry["category"]) == ("instance-conflict", "storage")
        assert system.delivery(second)["state"] == "failed"
        assert system.instance(second)["state"] == "routed"

    def test_replace_what_is_there_if_they_were_received_later(self, system: System) -> None:
        system.on_conflict("replace")
        system.receive(FIRST)
        system.pump()
        system.receive(OTHER)
        system.pump()
        assert list(system.peers["pacs"].stored.values()) == [OTHER]
        assert system.peers["pacs"].sent[-1].replaces
        assert not system.entries()

    def test_that_come_late_do_not_replace_newer_ones(self, system: System) -> None:
        """The queue delivers in any order."""
        system.on_conflict("replace")
        peer = system.peers["pacs"]
        older = system.receive(FIRST)
        system.step()
        system.step()
        held_up = system.bus.lease(["delivery-requested"], limit=1, lease_s=0.001)
        assert held_up
        newer = system.receive(OTHER)
        system.bus.settle(later=[(held_up[0].message_id, 3600.0)])
        system.pump()
        assert system.delivery(newer)["state"] == "delivered"
        system.bus.settle(later=[(held_up[0].message_id, 0.0)])
        system.pump()
        assert list(peer.stored.values()) == [OTHER]
        assert system.delivery(older)["state"] == "superseded"
        # So it is settled: the message may come again after the received file was deleted.
        system.ports.objects.delete(older.file.object_name)
        system.ports.bus.publish(
            [Outgoing(Topic.DELIVERY_REQUESTED, held_up[0].data, lane=held_up[0].lane)]
        )
        system.pump()
        assert system.delivery(older)["state"] == "superseded"
        assert not system.entries()

    def test_are_set_aside_with_an_entry_of_category_storage(self, system: System) -> None:
        system.on_conflict("quarantine")
        system.receive(FIRST)
        system.pump()
        second = system.receive(OTHER)
        system.pump()
        assert system.instance(second)["state"] == "quarantined"
        assert system.delivery(second)["state"] == "quarantined"
        (entry,) = system.entries()
        assert entry["category"] == "storage"
        system.on_conflict("replace")
        system.ports.exceptions.retry(entry["id"], by="test")
        system.pump()
        assert system.instance(second)["state"] == "routed"
        assert list(system.peers["pacs"].stored.values()) == [OTHER]

    def test_that_the_peer_itself_finds_are_set_aside_too(self, system: System) -> None:
        system.on_conflict("quarantine")

        def conflict(instance: OutgoingInstance) -> None:
            raise InstanceConflictError(instance.sop_instance_uid, "unknown", "00000000")

        system.peers["pacs"].before = conflict
        receipt = system.receive(FIRST)
        system.pump()
        assert system.instance(receipt)["state"] == "quarantined"

    @pytest.mark.parametrize("policy", ["keep_first", "replace", "quarantine"])
    def test_of_two_delivered_at_once_do_not_both_win(self, system: System, policy: str) -> None:
        system.on_conflict(policy)
        receipts = [system.receive(FIRST), system.receive(OTHER)]
        while system.bus.depth("delivery-requested").get("delivery-requested") is None or (
            system.bus.depth("delivery-requested")["delivery-requested"].messages < 2
        ):
            leased = system.bus.lease(
                ["instance-received", "instance-accepted"], limit=4, lease_s=60
            )
            handle(system, leased)
        both = threading.Barrier(2, timeout=120)
        inside = threading.Semaphore(1)

        def one_at_a_time(_: OutgoingInstance) -> None:
            assert inside.acquire(blocking=False), "two copies were sent at once"
            inside.release()

        system.peers["pacs"].before = one_at_a_time
        leased = system.bus.lease(["delivery-requested"], limit=2, lease_s=60)

        def deliver(index: int) -> None:
            both.wait()
            handle(system, [leased[index]])

        threads = [threading.Thread(target=deliver, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        system.pump()
        states = sorted(system.delivery(receipt)["state"] for receipt in receipts)
        if policy == "replace":
            assert list(system.peers["pacs"].stored.values()) == [OTHER]
            assert states in (["delivered", "delivered"], ["delivered", "superseded"])
        else:
            expected = "failed" if policy == "keep_first" else "quarantined"
            assert states == ["delivered", expected]
            assert len(system.entries()) == 1


def handle(system: System, leased: Sequence[Leased]) -> None:
    for message in leased:
        _, status, _ = system.call(message)
        if status < 300:
            system.bus.settle(acknowledged=[message.message_id])
        else:
            system.bus.settle(later=[(message.message_id, 0.0)])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def records(tmp_path: Path, clock: FakeClock) -> Copies:
    return Copies(SqliteDocumentStore(tmp_path / "documents.db"), clock)


def copy(mark: str, receipt_id: str, second: int = 0) -> Copy:
    return Copy("pacs", "PACS@host:104", "1.2.3", mark, receipt_id, f"2026-11-21T10:00:{second:02}")


class TestAClaim:
    def test_keeps_others_waiting_until_it_is_confirmed(self, records: Copies) -> None:
        assert records.claim(copy("a", "r1")) == Claimed(redelivery=False)
        for other in (copy("b", "r2"), copy("a", "r2")):
            with pytest.raises(CopyInFlightError):
                records.claim(other)
        records.confirm(copy("a", "r1"))
        assert records.claim(copy("a", "r2")) == Present("r1")
        assert records.claim(copy("b", "r2")) == Conflict("r1", "a")

    def test_that_rests_keeps_other_bytes_waiting_but_not_equal_ones(self, records: Copies) -> None:
        """The answer was lost: equal bytes find out, others would only add to the doubt."""
        records.claim(copy("a", "r1"))
        records.rest(copy("a", "r1"), gives_up=False)
        with pytest.raises(CopyInFlightError):
            records.claim(copy("b", "r2"))
        assert records.claim(copy("a", "r2")) == Claimed(redelivery=True)

    def test_that_was_given_up_keeps_nobody_waiting(self, records: Copies) -> None:
        records.claim(copy("a", "r1"))
        records.rest(copy("a", "r1"), gives_up=True)
        assert records.claim(copy("b", "r2")) == Claimed(redelivery=False)

    def test_that_is_released_leaves_nothing(self, records: Copies) -> None:
        records.claim(copy("a", "r1"))
        records.release(copy("a", "r1"))
        assert records.claim(copy("b", "r2")) == Claimed(redelivery=False)

    def test_of_the_same_receipt_is_taken_up_again(self, records: Copies) -> None:
        """Its process was killed, and whether it was stored is open."""
        records.claim(copy("a", "r1"))
        assert records.claim(copy("a", "r1")) == Claimed(redelivery=True)

    def test_that_ran_out_is_taken_over_and_its_holder_finds_out(
        self, records: Copies, clock: FakeClock
    ) -> None:
        records.claim(copy("a", "r1"))
        clock.advance(copies.CLAIM_S + 1)
        assert records.claim(copy("b", "r2")) == Claimed(redelivery=False)
        with pytest.raises(CopyInFlightError):
            records.confirm(copy("a", "r1"))
        # Either may be there now, so a duplicate would prove nothing.
        assert records.claim(copy("b", "r2")) == Claimed(redelivery=False)
        records.confirm(copy("b", "r2"))
        assert records.claim(copy("a", "r1")) == Conflict("r2", "b")

    def test_is_over_if_the_clock_is_set_back_before_it_was_made(
        self, records: Copies, clock: FakeClock
    ) -> None:
        """Else others would wait for as long as the clock was wrong."""
        records.claim(copy("a", "r1"))
        clock.set_wall_clock(-6 * 3600)
        assert records.claim(copy("b", "r2")) == Claimed(redelivery=False)

    def test_replaces_older_bytes_alone(self, records: Copies) -> None:
        records.claim(copy("a", "r2", 2))
        records.confirm(copy("a", "r2", 2))
        assert records.claim(copy("b", "r1", 1), replaces=True) == Superseded("r2")
        assert records.claim(copy("c", "r3", 3), replaces=True) == Claimed(redelivery=False)

    def test_confirmed_twice_is_once(self, records: Copies) -> None:
        records.claim(copy("a", "r1"))
        records.confirm(copy("a", "r1"))
        records.confirm(copy("a", "r1"))
        assert records.claim(copy("a", "r1")) == Present("r1")

    def test_is_had_by_one_of_many_at_once(self, records: Copies) -> None:
        start = threading.Barrier(8, timeout=120)
        won: list[str] = []

        def contend(number: int) -> None:
            start.wait()
            try:
                if isinstance(records.claim(copy(f"{number}", f"r{number}")), Claimed):
                    won.append(f"r{number}")
            except CopyInFlightError:
                pass

        threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(won) == 1


@pytest.mark.parametrize("route", ["primary-storage", "either"])
def test_what_replaces_a_file_under_another_name_leaves_one_file(
    tmp_path: Path, route: str
) -> None:
    """The template names the Series, and a correction may change that; also by way of a group."""
    system = EmbeddedSystem(tmp_path / "home")
    folder = {"name": "primary-storage", "type": "filesystem", "path": "primary-storage"}
    members = ["primary-storage"]
    system.ports.configuration.apply(
        {
            "destinations": [
                {**folder, "on_conflict": "replace"},
                {"name": "either", "type": "group", "members": members, "on_conflict": "replace"},
            ],
            "settings": {"default_route": [route], "min_free_bytes": 0},
        },
        by="test",
    )
    system.receive("one")
    system.work()
    (before,) = system.delivered()
    system.clock.advance(1)
    system.receive("one", series="another-series")
    system.work()
    (after,) = system.delivered()
    assert before != after
    assert build.uid("another-series") in str(after)
    system.ports.destinations.close()
