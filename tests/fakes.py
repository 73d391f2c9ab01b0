"""Fakes of the ports that have nothing real to test with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Lock

from shared.errors import SecretMissingError


class FakeClock:
    """A Clock that moves when told to; it starts on 2026-11-21T10:00:00Z."""

    def __init__(self, now: datetime = datetime(2026, 11, 21, 10, tzinfo=UTC)) -> None:
        self._lock = Lock()
        self._now = now
        self._monotonic_s = 1000.0

    def now(self) -> datetime:
        """The time it was told."""
        with self._lock:
            return self._now

    def monotonic_s(self) -> float:
        """Moves with `now`, except when the wall clock is set."""
        with self._lock:
            return self._monotonic_s

    def set_wall_clock(self, seconds: float) -> None:
        """Correct the wall clock by so much, forward or back; no time passes."""
        with self._lock:
            self._now += timedelta(seconds=seconds)

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic_s += seconds


class MemorySecrets:
    """A SecretStore whose secrets are those that it is made with, and what is put."""

    def __init__(self, **secrets: str) -> None:
        self._secrets = secrets

    def get(self, name: str) -> str:
        if name not in self._secrets:
            raise SecretMissingError(name)
        return self._secrets[name]

    def put(self, name: str, value: str) -> None:
        self._secrets[name] = value

    def delete(self, name: str) -> None:
        self._secrets.pop(name, None)
