"""C-MOVE and C-GET sub-operations: counted, cancelled, and broken off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from io import BytesIO

import pytest
from pydicom import dcmread

from scp_gateway import fetching
from scp_gateway.dimse_status import Status
from scp_gateway.query_jobs import Control, Reply
from scp_gateway.retrieving import retrieving
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.dicom.query import STUDY_INSTANCE_UID, Key, Level, Match, Query
from shared.errors import SourceUnavailableError
from shared.ports import FoundInstance, Retrieval, Retrieved
from tests.data import build

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
QUERY = Query(Level.STUDY, (Key(STUDY_INSTANCE_UID, "UI", ("1.2",)),))


def instance(number: int) -> bytes:
    """A Part 10 file with SOP Instance UID `1.2.3.NUMBER`."""
    data_set = dcmread(BytesIO(build.ct()))
    data_set.SOPInstanceUID = f"1.2.3.{number}"
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    file = BytesIO()
    data_set.save_as(file)
    return file.getvalue()


class FakeArchive:
    """Shows Instances 1 to `shows`, and gives `gives` of them."""

    def __init__(self, shows: int, gives: Sequence[int], error: Exception | None = None) -> None:
        self._shows, self._gives, self._error = shows, gives, error

    def find(self, query: Query) -> Iterator[Match | None]:
        raise AssertionError(query)

    def instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]:
        assert query is QUERY
        for number in range(1, self._shows + 1):
            yield None
            yield "1.2", FoundInstance(f"1.2.3.{number}", "1.2.3", CT)

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        assert wanted.is_whole
        for number in self._gives:
            yield Retrieved("", iter((instance(number),)))
        if self._error is not None:
            raise self._error


class FakeTaker:
    """Takes Instances in `syntaxes`, and answers as a test says."""

    def __init__(
        self,
        answer: Callable[[int], int] = lambda _: 0,
        syntaxes: Iterable[str] = (EXPLICIT, IMPLICIT),
    ) -> None:
        self._answer, self._syntaxes = answer, list(syntaxes)
        self.taken: list[tuple[str, str]] = []
        self.classes: set[str] = set()
        self.is_closed = False

    def open(self, sop_classes: Iterable[str]) -> None:
        self.classes = set(sop_classes)

    def transfer_syntaxes(self, sop_class_uid: str) -> Iterable[str]:
        return self._syntaxes if sop_class_uid in self.classes else []

    def take(self, instance: OutgoingInstance) -> Generator[None, None, int]:
        yield
        assert b"".join(chunks(instance.data_set_parts()))
        self.taken.append((instance.sop_instance_uid, instance.transfer_syntax_uid))
        return self._answer(len(self.taken))

    def close(self) -> None:
        self.is_closed = True


def retrieved(
    archive: FakeArchive,
    taker: FakeTaker,
    *,
    control: Control | None = None,
    max_instance_bytes: int = 1 << 20,
) -> Iterator[Reply]:
    job = retrieving(
        archive,
        QUERY,
        taker,
        control or Control(),
        transfer_syntax_uid=EXPLICIT,
        max_instance_bytes=max_instance_bytes,
    )
    return filter(None, job)


def numbers(reply: Reply) -> tuple[int, int, int, int]:
    """Remaining, completed, failed, warning."""
    assert reply.counts is not None
    counts = reply.counts
    return counts.remaining, counts.completed, counts.failed, counts.warning


def test_each_sub_operation_is_counted_as_it_is_done() -> None:
    taker = FakeTaker()
    replies = list(retrieved(FakeArchive(3, [1, 2, 3]), taker))
    assert [numbers(reply)[0] for reply in replies] == [3, 2, 1, 0, 0, 0]
    assert replies[-1].answer.status == Status.SUCCESS
    assert numbers(replies[-1]) == (0, 3, 0, 0)
    assert taker.is_closed


def test_what_the_store_does_not_give_and_what_is_refused_has_failed() -> None:
    answers = {1: 0xB000, 2: 0xA700}
    taker = FakeTaker(lambda count: answers[count])
    *_, last = retrieved(FakeArchive(3, [1, 3]), taker)
    assert last.answer.status == Status.SUB_OPERATIONS_FAILED
    assert numbers(last) == (0, 0, 2, 1)
    for uid in (b"1.2.3.2", b"1.2.3.3"):
        assert uid in last.identifier


def test_what_nobody_asked_for_is_not_sent() -> None:
    taker = FakeTaker()
    *_, last = retrieved(FakeArchive(1, [7, 1, 1]), taker)
    assert [uid for uid, _ in taker.taken] == ["1.2.3.1"]
    assert numbers(last) == (0, 1, 0, 0)


def test_a_cancelled_request_stops_before_the_next_instance() -> None:
    control, taker = Control(), FakeTaker()
    replies = retrieved(FakeArchive(3, [1, 2, 3]), taker, control=control)
    while numbers(next(replies))[1] == 0:
        pass
    control.is_cancelled = True
    *_, last = replies
    assert last.answer.status == Status.CANCELLED
    assert numbers(last) == (2, 1, 0, 0)
    assert taker.is_closed


def test_a_store_that_breaks_in_the_middle_fails_the_rest() -> None:
    error = SourceUnavailableError("archive", "answer cut short")
    *_, last = retrieved(FakeArchive(3, [1], error), FakeTaker())
    assert last.answer.status == Status.SUB_OPERATIONS_FAILED
    assert numbers(last) == (0, 1, 2, 0)


def test_a_series_that_broke_off_while_others_were_sent_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "_MOST_FILES", 1)
    has_waited, asked = threading.Event(), []

    class Impatient(FakeArchive):
        """Its second Series breaks off once the first has gone, of which it gives one Instance."""

        def instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]:
            for number in (1, 2, 3):
                series = "1.2.1" if number == 1 else "1.2.2"
                yield "1.2", FoundInstance(f"1.2.3.{number}", series, CT)

        def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
            asked.append(wanted.is_whole)
            if wanted.series_instance_uid == "1.2.1":
                has_waited.wait(60)
                yield Retrieved("", iter((instance(1),)))
            elif wanted.is_whole:
                yield Retrieved("", iter((instance(2),)))
                raise SourceUnavailableError("archive", "answer cut short")
            else:
                yield Retrieved("", iter((instance(3),)))

    original = fetching.Fetching._may_go_on

    def may_go_on(self: fetching.Fetching, lane: fetching.Lane, number: int) -> bool:
        goes_on = original(self, lane, number)
        if not goes_on:
            has_waited.set()
        return goes_on

    monkeypatch.setattr(fetching.Fetching, "_may_go_on", may_go_on)
    taker = FakeTaker()
    *_, last = retrieved(Impatient(3, ()), taker)
    assert [uid for uid, _ in taker.taken] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert numbers(last) == (0, 3, 0, 0)
    assert sorted(asked) == [False, True, True]


def test_a_receiver_that_is_lost_fails_the_rest() -> None:
    def answer(count: int) -> int:
        if count == 2:
            raise ConnectionResetError
        return 0

    taker = FakeTaker(answer)
    *_, last = retrieved(FakeArchive(3, [1, 2, 3]), taker)
    assert last.answer.status == Status.SUB_OPERATIONS_FAILED
    assert numbers(last) == (0, 1, 2, 0)
    assert taker.is_closed


def test_a_receiver_that_takes_no_association_is_sent_nothing() -> None:
    class Closed(FakeTaker):
        def open(self, sop_classes: Iterable[str]) -> None:
            raise ConnectionRefusedError

    *_, last = retrieved(FakeArchive(2, [1, 2]), Closed())
    assert last.answer.status == Status.CANNOT_PERFORM_SUB_OPERATIONS
    assert numbers(last) == (0, 0, 2, 0)


@pytest.mark.parametrize(("syntaxes", "sent"), [([IMPLICIT], IMPLICIT), ([], None)])
def test_an_instance_is_transcoded_if_its_own_syntax_is_not_taken(
    syntaxes: list[str], sent: str | None
) -> None:
    taker = FakeTaker(syntaxes=syntaxes)
    *_, last = retrieved(FakeArchive(1, [1]), taker)
    assert [syntax for _, syntax in taker.taken] == ([sent] if sent else [])
    assert last.answer.status == (Status.SUCCESS if sent else Status.CANNOT_PERFORM_SUB_OPERATIONS)


def test_an_instance_without_end_is_not_spooled_for_ever() -> None:
    *_, last = retrieved(FakeArchive(1, [1]), FakeTaker(), max_instance_bytes=100)
    assert last.answer.status == Status.CANNOT_PERFORM_SUB_OPERATIONS
