"""Whose turn it is to be delivered, where the queue has no lanes: Pub/Sub pushes what it has.

Whoever delivers to a destination takes a turn first. There are as many at once as the destination
wants; while it is down there is one, a probe, now and then. Who gets none is told to come again,
before anything was asked or written for it: a destination that is down for hours costs little.

It holds for one process, which learns by itself how a destination is.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import DestinationBusyError, DestinationUnavailableError, PermanentError
from shared.ports import Clock
from shared.retrying import Circuit, RetryPolicy


class Turns:
    """The turns at all destinations; used by several threads."""

    def __init__(
        self,
        clock: Clock,
        *,
        longest_wait_s: float,
        policy: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Nobody waits longer than `longest_wait_s` for a turn, nor at all while it goes badly."""
        self._clock, self._longest_wait_s = clock, longest_wait_s
        self._policy, self._jitter = policy or RetryPolicy(), jitter
        self._lock = threading.Lock()
        self._places: dict[str, _Places] = {}

    @contextmanager
    def turn(self, destination: str, *, at_once: int) -> Iterator[None]:
        """Deliver within the block. What it raises tells how the destination is.

        Raises: DestinationBusyError instead of running the block.
        """
        with self._lock:
            places = self._places.get(destination)
            if places is None:
                places = self._places[destination] = _Places(self._policy, self._lock)
            self._enter(destination, places, at_once)
        is_well: bool | None = None  # what says nothing of the destination changes nothing
        retry_after_s = 0.0
        try:
            yield
            is_well = True
        except DestinationBusyError:
            raise
        except DestinationUnavailableError as error:
            is_well, retry_after_s = False, error.retry_after_s or 0.0
            raise
        except PermanentError as error:
            is_well = not error.refuses_all
            raise
        finally:
            with self._lock:
                places.taken -= 1
                if is_well:
                    places.circuit.succeeded()
                elif is_well is False:
                    now_s = self._clock.monotonic_s()
                    places.circuit.failed(now_s, self._jitter(), retry_after_s)
                places.is_free.notify_all()

    def _enter(self, destination: str, places: _Places, at_once: int) -> None:
        circuit = places.circuit
        until_s = time.monotonic() + self._longest_wait_s
        while True:
            wait_s = circuit.probe_at_s - self._clock.monotonic_s() if circuit.is_open else 0.0
            if wait_s <= 0 and places.taken < (1 if circuit.is_open else at_once):
                places.taken += 1
                return
            left_s = until_s - time.monotonic()
            if circuit.failures or left_s <= 0:
                raise _busy(destination, circuit, wait_s)
            places.is_free.wait(left_s)


class _Places:
    def __init__(self, policy: RetryPolicy, lock: threading.Lock) -> None:
        self.circuit = Circuit(policy)
        self.is_free = threading.Condition(lock)
        self.taken = 0


def _busy(destination: str, circuit: Circuit, wait_s: float) -> DestinationBusyError:
    words = "as many as it wants are being delivered"
    if circuit.is_open:
        words = f"not asked: {circuit.failures} deliveries failed in a row"
    error = DestinationBusyError(destination, words)
    error.retry_after_s = max(wait_s, 1.0)
    return error
