"""How a destination misbehaves: a mood for a while, and within it a misdeed now and then."""

from __future__ import annotations

import random
import threading
import time
from enum import StrEnum


class Deed(StrEnum):
    """What a peer does with one Instance. It keeps a copy only where that is said."""

    STORE = "store"  # keeps it and says so
    BUSY = "busy"  # A700H; 503 or 429 with Retry-After
    FAIL = "fail"  # 0110H; 500
    STALL = "stall"  # says nothing until long after the timeout
    HALF_CLOSE = "half-close"  # ends its half of the connection in place of an answer
    DROP = "drop"  # ends the connection while the data comes
    LOSE_ANSWER = "lose-answer"  # keeps it, and ends the connection in place of an answer


class Mood(StrEnum):
    """How a peer is for some seconds."""

    WELL = "well"
    FLAKY = "flaky"
    BUSY = "busy"
    SILENT = "silent"
    GONE = "gone"  # refuses connections


_MOODS = {Mood.WELL: 6, Mood.FLAKY: 6, Mood.BUSY: 2, Mood.SILENT: 1, Mood.GONE: 2}
_MOOD_S = (1.0, 6.0)
_DEEDS = {
    Mood.WELL: {Deed.STORE: 1},
    Mood.FLAKY: {
        Deed.STORE: 12,
        Deed.BUSY: 1,
        Deed.FAIL: 1,
        Deed.HALF_CLOSE: 1,
        Deed.DROP: 1,
        Deed.LOSE_ANSWER: 2,
    },
    Mood.BUSY: {Deed.STORE: 1, Deed.BUSY: 4},
    Mood.SILENT: {Deed.STORE: 4, Deed.STALL: 1},
    Mood.GONE: {Deed.STORE: 1},
}


class Temper:
    """The moods of one peer, by lot, until it is told to behave."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self._lock = threading.Lock()
        self._mood = Mood.WELL
        self._until_s = 0.0
        self._behaves = False

    @property
    def mood(self) -> Mood:
        """The mood now."""
        with self._lock:
            if self._behaves:
                return Mood.WELL
            if time.monotonic() > self._until_s:
                (self._mood,) = self._random.choices(list(_MOODS), list(_MOODS.values()))
                self._until_s = time.monotonic() + self._random.uniform(*_MOOD_S)
            return self._mood

    def deed(self) -> Deed:
        """What to do with the next Instance."""
        deeds = _DEEDS[self.mood]
        with self._lock:
            (deed,) = self._random.choices(list(deeds), list(deeds.values()))
        return deed

    def chance(self, probability: float) -> bool:
        """True so often."""
        with self._lock:
            return self._random.random() < probability

    def behave(self) -> None:
        """Be well from now on."""
        with self._lock:
            self._behaves = True
