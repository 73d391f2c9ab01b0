"""Threads that take turns: a few pieces of work at a time, in the order in which they came.

Threads that all want the interpreter get it in no order. Of sixteen short requests at once some
would wait for as long as three rounds of the others; in turn each waits for one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Work = tuple[Future[Any], Callable[[], Any]]


class TurnTakingExecutor(Executor):
    """`threads` of which `at_once` have a turn; what comes first is begun first.

    What takes longer than `longest_s`, because it waits for another system say, goes on and has
    its turn no longer, and so does what gives its turn up: neither keeps others from theirs.
    Threads end with the process.
    """

    def __init__(self, threads: int, at_once: int, longest_s: float) -> None:
        self._turns, self._longest_s = at_once, longest_s
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)
        self._waiting: deque[_Work] = deque()
        self._taken: dict[int, float] = {}  # by which thread, since when
        self._is_over = False
        self._some_wait, self._end_of_watch = threading.Event(), threading.Event()
        for _ in range(threads):
            threading.Thread(target=self._take_turns, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """Have it done in its turn."""
        future: Future[_R] = Future()
        with self._lock:
            if self._is_over:
                raise RuntimeError("the threads are told to end")
            self._waiting.append((future, lambda: fn(*args, **kwargs)))
            self._call()
        return future

    def give_up_turn(self) -> None:
        """Called by a piece of work: it will take long, and somebody else may have its turn."""
        with self._lock:
            self._taken.pop(threading.get_ident(), None)
            self._call()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more, and have threads end that have nothing to do; nobody waits for others."""
        self._is_over = True
        # Gunicorn calls it in a signal's handler, which may have interrupted who holds a lock.
        threading.Thread(target=self._wake_all, daemon=True).start()

    def _wake_all(self) -> None:
        with self._lock:
            self._called.notify_all()
        self._end_of_watch.set()
        self._some_wait.set()

    def _call(self) -> None:
        """Wake a thread, if there is work and a turn for it."""
        if not self._waiting:
            return
        if len(self._taken) < self._turns:
            self._called.notify()
        else:
            self._some_wait.set()

    def _take_turns(self) -> None:
        while work := self._next():
            _do(*work)
            del work

    def _next(self) -> _Work | None:
        me = threading.get_ident()
        with self._lock:
            self._taken.pop(me, None)
            while not (self._waiting and len(self._taken) < self._turns):
                if self._is_over and not self._waiting:
                    return None
                self._called.wait()
            self._taken[me] = time.monotonic()
            work = self._waiting.popleft()
            self._call()
            return work

    def _watch(self) -> None:
        """End turns that are too long, as long as somebody waits for one."""
        while self._some_wait.wait() and not self._end_of_watch.wait(self._longest_s):
            with self._lock:
                late_s = time.monotonic() - self._longest_s
                for thread in [one for one, since_s in self._taken.items() if since_s <= late_s]:
                    del self._taken[thread]
                    self._call()
                if not self._waiting:
                    self._some_wait.clear()


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
