"""Fetching ahead of what is sent: at once, in order, and never more than there is room for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from scp_gateway import fetching
from scp_gateway.fetching import Fetching
from shared.errors import InstanceTooLargeError, SourceUnavailableError
from shared.ports import FoundInstance, Retrieval, Retrieved

LONG_S = 60.0


def series(number: int, instances: int = 3) -> Retrieval:
    found = tuple(FoundInstance(f"{number}.{i}", f"{number}") for i in range(instances))
    return Retrieval("1.2", found, series_instance_uid=f"{number}", is_whole=True)


class FakeArchive:
    """Gives what is wanted, and tells a test when."""

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        self._before = before
        self.asked: list[Retrieval] = []
        self.given: list[str] = []

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        self.asked.append(wanted)
        for one in wanted.instances:
            self._before(one.uid)
            self.given.append(one.uid)
            yield Retrieved(one.uid, iter((one.uid.encode(), b"!" * 100)))


def fetched(archive: FakeArchive, wanted: list[Retrieval]) -> list[str]:
    with closing(Fetching(archive, wanted, max_instance_bytes=1000)) as each:
        return [file.uid for lane in each.each() for file in each.files(lane) if file is not None]


def test_everything_comes_in_order() -> None:
    wanted = [series(number, number) for number in range(1, 12)]
    archive = FakeArchive()
    assert fetched(archive, wanted) == [one.uid for s in wanted for one in s.instances]


def test_several_series_are_fetched_at_once() -> None:
    all_here = threading.Barrier(4, timeout=LONG_S)

    def before(uid: str) -> None:
        if uid.endswith(".0"):
            all_here.wait()

    assert len(fetched(FakeArchive(before), [series(n, 1) for n in range(8)])) == 8


def test_whoever_sends_is_not_held_up_while_nothing_is_there() -> None:
    may_come = threading.Event()

    def before(_: str) -> None:
        may_come.wait(LONG_S)

    archive = FakeArchive(before)
    with closing(Fetching(archive, [series(1, 1)], max_instance_bytes=1000)) as each:
        files = each.files(next(each.each()))
        assert next(files) is None
        may_come.set()
        assert [file.uid for file in files if file is not None] == ["1.0"]


def test_no_more_is_fetched_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_MOST_FILES", 5)
    waits = threading.Semaphore(0)
    archive = FakeArchive()
    original = Fetching._may_go_on

    def may_go_on(self: Fetching, lane: fetching.Lane, number: int) -> bool:
        goes_on = original(self, lane, number)
        if not goes_on and not lane.has_waited:
            waits.release()
        return goes_on

    monkeypatch.setattr(Fetching, "_may_go_on", may_go_on)
    wanted = [series(number, 50) for number in range(4)]
    with closing(Fetching(archive, wanted, max_instance_bytes=1000)) as each:
        for _ in range(4):
            assert waits.acquire(timeout=LONG_S)
        # Each thread had one on its way when there was no room any more.
        assert len(archive.given) <= 5 + 4
        sent = []
        for lane in each.each():
            for file in each.files(lane):
                if file is not None:
                    sent.append(file.uid)
                    assert len(archive.given) - len(sent) <= 5 + 4
    assert sent == [one.uid for s in wanted for one in s.instances]


def test_what_others_fetched_leaves_room_for_what_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_MOST_FILES", 2)
    others_are_full = threading.Event()
    archive = FakeArchive()

    def before(uid: str) -> None:
        # The first Series comes once the others hold all the room.
        if uid == "1.0":
            others_are_full.wait(LONG_S)
        elif len(archive.given) >= 2:
            others_are_full.set()

    archive._before = before
    assert len(fetched(archive, [series(n, 4) for n in (1, 2, 3, 4)])) == 16


def test_a_store_that_fails_is_told_when_its_turn_comes() -> None:
    def before(uid: str) -> None:
        if uid == "2.1":
            raise SourceUnavailableError("archive", "answer cut short")

    archive = FakeArchive(before)
    with closing(Fetching(archive, [series(1), series(2)], max_instance_bytes=1000)) as each:
        first, second = each.each()
        assert len([file for file in each.files(first) if file]) == 3
        with pytest.raises(SourceUnavailableError):
            list(each.files(second))
        [rest] = each.once_more(second, second.wanted.instances[2:])
        assert rest is not None
        assert rest.uid == "2.2"
        assert [one.is_whole for one in archive.asked] == [True, True, False]


def test_an_instance_without_end_is_given_up() -> None:
    with (
        closing(Fetching(FakeArchive(), [series(1)], max_instance_bytes=50)) as each,
        pytest.raises(InstanceTooLargeError),
    ):
        list(each.files(next(each.each())))


def test_what_is_closed_fetches_nothing_more() -> None:
    may_come, asked = threading.Event(), threading.Event()

    def before(uid: str) -> None:
        asked.set()
        may_come.wait(LONG_S)

    archive = FakeArchive(before)
    threads = set(threading.enumerate())
    each = Fetching(archive, [series(n, 50) for n in range(20)], max_instance_bytes=1000)
    assert asked.wait(LONG_S)
    each.close()
    may_come.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert len(archive.given) <= 4
