"""Short requests are answered in the order in which they were asked, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from shared.web.turns import TurnTakingExecutor

# Nobody waits so long; a turn that is to end for its length is made short by the test.
LONG_S = 600.0


class Request:
    """Work that has begun once it has its turn, and goes on until it is told to end."""

    def __init__(
        self, threads: TurnTakingExecutor, at_begin: Callable[[], object] = lambda: None
    ) -> None:
        self.has_begun, self._may_end = threading.Event(), threading.Event()
        self._at_begin = at_begin
        self._done = threads.submit(self._run)

    def _run(self) -> None:
        self._at_begin()
        self.has_begun.set()
        assert self._may_end.wait(60)

    def begins(self) -> bool:
        return self.has_begun.wait(60)

    def end(self) -> None:
        self._may_end.set()
        self._done.result(60)


@contextmanager
def turns(at_once: int, longest_s: float = LONG_S) -> Iterator[TurnTakingExecutor]:
    threads = TurnTakingExecutor(8, at_once, longest_s)
    yield threads
    threads.shutdown()


class TestTurnTakingExecutor:
    def test_begins_first_what_came_first(self) -> None:
        with turns(2) as threads:
            requests = [Request(threads) for _ in range(6)]
            for number, request in enumerate(requests):
                assert request.begins()
                assert all(next_.begins() for next_ in requests[number + 1 : number + 2])
                assert not any(later.has_begun.is_set() for later in requests[number + 2 :])
                request.end()

    def test_does_not_have_others_wait_for_what_takes_long(self) -> None:
        """Requests that ask another system would else hold up what is answered at once."""
        with turns(1, longest_s=0.01) as threads:
            long, short = Request(threads), Request(threads)
            assert long.begins()
            assert short.begins()
            short.end()
            long.end()

    def test_does_not_have_others_wait_for_what_has_given_its_turn_up(self) -> None:
        """As many uploads as there are threads go on side by side."""
        with turns(1) as threads:
            uploads = [Request(threads, threads.give_up_turn) for _ in range(7)]
            assert all(upload.begins() for upload in uploads)
            short = Request(threads)
            assert short.begins()
            for request in (short, *uploads):
                request.end()

    def test_gives_no_turn_twice_back(self) -> None:
        with turns(1) as threads:
            upload = Request(threads, threads.give_up_turn)
            first, second = Request(threads), Request(threads)
            assert upload.begins()
            assert first.begins()
            upload.end()
            assert not second.has_begun.is_set()
            first.end()
            assert second.begins()
            second.end()

    def test_tells_who_asked_what_failed_and_goes_on(self) -> None:
        with turns(1) as threads:
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    threads.submit(lambda: 1 / 0).result(60)
            assert threads.submit(lambda: 1).result(60) == 1

    def test_finishes_what_waits_and_takes_no_more_once_it_is_told_to_end(self) -> None:
        with turns(1) as threads:
            first, waiting = Request(threads), Request(threads)
            assert first.begins()
        with pytest.raises(RuntimeError):
            Request(threads)
        first.end()
        assert waiting.begins()
        waiting.end()
