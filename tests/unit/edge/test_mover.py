"""What a gateway on premises received arrives in the cloud: once, in order, whatever breaks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shared import crash_points
from shared.edge import mover
from shared.errors import (
    NotDicomError,
    ObjectMissingError,
    OverloadedError,
    StorageUnavailableError,
)
from shared.logs import JsonFormatter
from shared.messages import ExceptionRaised, Topic, decode
from shared.ports import ObjectReader, Outgoing
from tests.data import build
from tests.edge_system import SOURCE, CutLinkError, EdgeSystem
from tests.running import wait_until

DAY_S = 86_400.0


@pytest.fixture
def edge(tmp_path: Path) -> EdgeSystem:
    return EdgeSystem(tmp_path)


def _moved(edge: EdgeSystem) -> set[str]:
    """What the cloud has been told of after one step more."""
    edge.move_for(1)
    return {one.receipt_id for one in edge.cloud.received()}


def _is_gone(edge: EdgeSystem, name: str) -> bool:
    try:
        edge.objects.stat(name)
    except ObjectMissingError:
        return True
    return False


def test_the_cloud_is_told_exactly_what_a_gateway_there_would_tell(edge: EdgeSystem) -> None:
    receipt = edge.receive()
    [here] = edge.spool.waiting(limit=10, after=0)
    edge.move()
    [there] = edge.cloud.bus.in_order([Topic.INSTANCE_RECEIVED], limit=10)
    assert (there.topic, there.data, there.attributes) == (here.topic, here.data, here.attributes)
    with edge.cloud.objects.open(receipt.file.object_name) as reader:
        assert reader.read_at(0, reader.size) == build.ct(instance="one")


def test_what_the_cloud_has_is_deleted_here_and_not_before(edge: EdgeSystem) -> None:
    receipt = edge.receive()
    edge.cloud.is_cut = True
    edge.move()
    assert not _is_gone(edge, receipt.file.object_name)
    edge.cloud.is_cut = False
    edge.clock.advance(120)
    edge.move()
    assert _is_gone(edge, receipt.file.object_name)
    edge.clock.advance(3600)
    depth = edge.spool.depth()
    assert (depth.messages, depth.bytes) == (0, 0)


def test_days_without_the_link_lose_nothing(edge: EdgeSystem) -> None:
    edge.cloud.is_cut = True
    expected = []
    for day in range(3):
        expected += [edge.receive(f"{day}-{number}").sop_instance_uid for number in range(5)]
        edge.clock.advance(DAY_S)
        edge.move()
        edge.start()  # the machine is switched off at night
    assert edge.cloud.received() == []
    assert edge.spool.depth().oldest_s >= 3 * DAY_S
    edge.cloud.is_cut = False
    edge.clock.advance(120)
    edge.move()
    assert [one.sop_instance_uid for one in edge.cloud.received()] == expected


def test_a_study_keeps_its_order_when_an_upload_fails(edge: EdgeSystem) -> None:
    """The second file goes first; its message waits for the first one of its Study."""
    first = edge.receive("a-1", study="a")
    second = edge.receive("a-2", study="a")
    other = edge.receive("b-1", study="b")
    send = edge.cloud.send

    def sent(reader: ObjectReader, crc32c: int) -> None:
        if reader.name == first.file.object_name:
            raise CutLinkError("the link is cut")
        send(reader, crc32c)

    edge.cloud.send = sent  # type: ignore[method-assign]
    edge.move_for(20)
    assert [one.receipt_id for one in edge.cloud.received()] == [other.receipt_id]
    edge.cloud.send = send  # type: ignore[method-assign]
    edge.clock.advance(60)
    edge.move()
    told = [one.receipt_id for one in edge.cloud.received()]
    assert sorted(told) == sorted(one.receipt_id for one in (first, second, other))
    assert told.index(first.receipt_id) < told.index(second.receipt_id)


def test_a_link_that_is_down_is_tried_by_one_and_ever_more_seldom(edge: EdgeSystem) -> None:
    for number in range(10):
        edge.receive(str(number))
    edge.cloud.is_cut = True
    edge.move_for(10)
    waits = []
    for _ in range(8):
        edge.clock.advance(edge.link.wait_s())
        edge.move_for(10)
        waits.append(edge.link.wait_s())
    assert edge.link.is_down
    assert waits == sorted(waits)
    assert waits[-1] == 60.0
    edge.cloud.is_cut = False
    edge.clock.advance(60)
    edge.move()
    assert len(edge.cloud.received()) == 10
    assert edge.link.since is None


def test_one_file_that_cannot_go_keeps_no_other_back(edge: EdgeSystem) -> None:
    broken = edge.receive("broken", study="a")
    good = edge.receive("good", study="b")
    send = edge.cloud.send

    def sent(reader: ObjectReader, crc32c: int) -> None:
        if reader.name == broken.file.object_name:
            raise ValueError("a bug")
        send(reader, crc32c)

    edge.cloud.send = sent  # type: ignore[method-assign]
    edge.move_for(20)
    assert [one.receipt_id for one in edge.cloud.received()] == [good.receipt_id]
    assert (edge.mover.counts.stuck, edge.mover.counts.stuck_why) == (1, "ValueError")
    edge.cloud.send = send  # type: ignore[method-assign]
    edge.clock.advance(301)
    edge.move()
    assert edge.mover.counts.stuck == 0
    assert len(edge.cloud.received()) == 2


@pytest.mark.parametrize("broken", ["open", "read"])
def test_a_file_that_our_own_disk_does_not_give_back_is_no_fault_of_the_link(
    edge: EdgeSystem, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """One bad sector would hold up its Study for ever, and have all others go one by one."""
    bad, same_study, other = (edge.receive(name, study=name[0]) for name in ("a1", "a2", "b"))
    open_ = edge.objects.open

    def unreadable(*_: Any) -> NoReturn:
        raise StorageUnavailableError("Input/output error")

    def opened(name: str) -> ObjectReader:
        if name != bad.file.object_name:
            return open_(name)
        if broken == "open":
            unreadable()
        reader = open_(name)
        patched.setattr(reader, "read_at", unreadable)
        return reader

    with monkeypatch.context() as patched:
        patched.setattr(edge.objects, "open", opened)
        wait_until(lambda: _moved(edge) == {same_study.receipt_id, other.receipt_id})
        wait_until(lambda: _moved(edge) and edge.mover.counts.stuck == 1)
    assert edge.mover.counts.stuck_why == "spool-unreadable"
    assert edge.link.since is None
    edge.clock.advance(301)
    edge.move()
    assert len(edge.cloud.received()) == 3


@pytest.mark.parametrize(
    "broken", [range(1), range(6)], ids=["the first of a long Study", "more than are looked at"]
)
def test_files_that_cannot_go_leave_room_for_those_that_can(
    edge: EdgeSystem, monkeypatch: pytest.MonkeyPatch, broken: range
) -> None:
    """They may be stuck until a person comes, and reception goes on."""
    monkeypatch.setattr(mover, "_WINDOW", 4)
    long = [edge.receive(str(number), study="long") for number in range(6)]
    other = edge.receive("other", study="other")
    stuck = {long[number].file.object_name for number in broken}
    send = edge.cloud.send

    def sent(reader: ObjectReader, crc32c: int) -> None:
        if reader.name in stuck:
            raise ValueError("a bug")
        send(reader, crc32c)

    edge.cloud.send = sent  # type: ignore[method-assign]
    edge.move_for(30)
    told = {one.receipt_id for one in edge.cloud.received()}
    assert other.receipt_id in told
    assert len(told) == 7 - len(stuck)
    assert edge.mover.counts.stuck == len(stuck)


def test_nothing_of_the_patient_is_said_of_what_cannot_go(
    edge: EdgeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a bug's own text quotes, or a link's that breaks."""
    caplog.set_level(0)
    patient = {"patient_id": "CANARY^YELLOW"}
    for number in range(3):
        edge.receive(str(number), study=str(number), **patient)
    errors = iter((ValueError("CANARY^YELLOW"), CutLinkError("the link is cut")))

    def broken(reader: ObjectReader, crc32c: int) -> None:
        raise next(errors, ConnectionError("CANARY^YELLOW"))

    edge.cloud.send = broken  # type: ignore[method-assign]
    edge.move_for(20)
    said = [JsonFormatter("gateway").format(one) for one in caplog.records]
    assert [one for one in said if "cannot be moved" in one]
    assert "CANARY" not in f"{said} {edge.mover.counts} {edge.link.words}"


def test_one_message_that_the_cloud_does_not_take_keeps_no_other_back(edge: EdgeSystem) -> None:
    receipts = [edge.receive(str(number)) for number in range(3)]
    publish = edge.cloud.publish

    def published(messages: Iterable[Outgoing]) -> None:
        given = list(messages)
        if any(receipts[1].receipt_id.encode() in one.data for one in given):
            raise ValueError("an argument that is none")
        publish(given)

    edge.cloud.publish = published  # type: ignore[method-assign]
    edge.move_for(20)
    told = [one.receipt_id for one in edge.cloud.received()]
    assert told == [receipts[0].receipt_id, receipts[2].receipt_id]
    assert (edge.mover.counts.stuck, edge.link.since) == (1, None)
    edge.cloud.publish = publish  # type: ignore[method-assign]
    edge.clock.advance(301)
    edge.move()
    assert len(edge.cloud.received()) == 3
    assert edge.mover.counts.stuck == 0


def test_what_the_cloud_says_is_missing_there_is_not_taken_for_moved(edge: EdgeSystem) -> None:
    """What an answer said was there may be deleted by then: the file stays, and goes again."""
    receipt = edge.receive()
    send = edge.cloud.send

    def sent(reader: ObjectReader, crc32c: int) -> None:
        raise ObjectMissingError(reader.name)

    edge.cloud.send = sent  # type: ignore[method-assign]
    edge.move_for(10)
    assert edge.cloud.received() == []
    assert not _is_gone(edge, receipt.file.object_name)
    edge.cloud.send = send  # type: ignore[method-assign]
    edge.clock.advance(301)
    edge.move()
    assert [one.receipt_id for one in edge.cloud.received()] == [receipt.receipt_id]


def test_a_refusal_is_in_the_exception_log_of_the_cloud(edge: EdgeSystem) -> None:
    with edge.receiver.begin(SOURCE) as staging:
        staging.write(build.text_file())
        with pytest.raises(NotDicomError):
            staging.commit()
    edge.move()
    [message] = edge.cloud.bus.in_order([Topic.EXCEPTION_RAISED], limit=10)
    assert decode(message.data, ExceptionRaised).code == "not-dicom"


def test_a_damaged_file_is_in_the_exception_log_and_stays_for_a_look(edge: EdgeSystem) -> None:
    receipt = edge.receive()
    path = edge.folder / "spool" / "objects" / receipt.file.object_name
    path.write_bytes(path.read_bytes()[:-2])
    edge.move()
    [message] = edge.cloud.bus.in_order([Topic.EXCEPTION_RAISED], limit=10)
    raised = decode(message.data, ExceptionRaised)
    assert (raised.code, raised.sop_instance_uid) == ("spool-damaged", receipt.sop_instance_uid)
    assert edge.cloud.received() == []
    assert path.exists()


def test_a_full_disk_refuses_and_opens_again(edge: EdgeSystem) -> None:
    edge.cloud.configuration.patch_settings({"min_free_bytes": 1 << 60}, by="test")
    edge.clock.advance(11)
    edge.mirror.look()
    edge.clock.advance(2)
    with pytest.raises(OverloadedError):
        edge.receive()
    edge.cloud.configuration.patch_settings({"min_free_bytes": 0}, by="test")
    edge.mirror.look()
    edge.clock.advance(2)
    edge.receive()


def test_what_nobody_was_told_of_is_swept_a_day_later(edge: EdgeSystem) -> None:
    kept = edge.receive("kept")
    with edge.objects.create("received/20261121/10/20261121T100000000000-00000000.dcm") as writer:
        writer.write(b"its sender was never answered")
        writer.commit()
    edge.cloud.is_cut = True
    assert edge.spool.sweep() == 0
    edge.clock.advance(DAY_S + 60)
    assert edge.spool.sweep() == 1
    assert list(edge.objects.list("received/")) == [kept.file.object_name]


@pytest.mark.parametrize(
    "name",
    [
        crash_points.AFTER_COMMIT,
        crash_points.AFTER_PUBLISH,
        crash_points.AFTER_UPLOAD,
        crash_points.AFTER_HANDOVER,
        crash_points.AFTER_FORGOTTEN,
    ],
)
def test_death_anywhere_neither_loses_nor_changes(tmp_path: Path, name: str) -> None:
    """What was published twice has one receipt: the cloud's stages deliver it once."""

    def work() -> None:
        edge = EdgeSystem(tmp_path)
        edge.receive("one")
        edge.move()

    _dies_at(name, work)
    edge = EdgeSystem(tmp_path)
    if name == crash_points.AFTER_COMMIT:  # its sender was not answered, and sends again
        edge.receive("one")
    edge.move()
    receipts = {one.receipt_id: one for one in edge.cloud.received()}
    [receipt] = receipts.values()
    with edge.cloud.objects.open(receipt.file.object_name) as reader:
        assert reader.read_at(0, reader.size) == build.ct(instance="one")
    edge.clock.advance(DAY_S + 60)
    edge.spool.sweep()
    assert list(edge.objects.list("received/")) == []
    assert edge.spool.depth().messages == 0


def _dies_at(name: str, work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        crash_points._points = {name: 1.0}
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
