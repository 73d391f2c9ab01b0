"""What goes wrong, by lot: kills, a disk that is full, other configurations, odd messages."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import requests

from infra.local.part import PART_NAMES
from infra.local.torture.configuration import NO_ROOM, settings, stamp_of
from infra.local.torture.operator import Operator
from infra.local.torture.system import System
from shared import crash_points
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.errors import AxiomError
from shared.messages import Topic
from shared.ports import Outgoing

# Between two things that go wrong.
_PAUSE_S = (0.2, 2.5)
# How long a disk is full.
_FULL_S = (0.5, 2.0)
_DELAY_MS = 3000
_CRASH_PROBABILITY = 0.01
_CRASH_POINTS_AT_ONCE = 4
# How far off the wall clock is set, every few seconds.
_JUMPS_S = 6 * 3600.0


class Chaos:
    """Wreaks havoc on one system until told to stop. Used from one thread."""

    def __init__(self, system: System, random_: random.Random) -> None:
        self._system, self._random = system, random_
        self._queue = Queue(system.home)
        self.operator = Operator(system, random_)
        self.poisoned = 0
        # The last change of the configuration that was confirmed, and the last that was tried.
        self.confirmed_stamp = self._stamp = 0
        self._deeds: dict[Callable[[], None], int] = {
            self._kill_part: 12,
            self._kill_child: 1,
            self._kill_supervisor: 2,
            self._system.kill_fork_server: 1,
            self._change_configuration: 3,
            self._fill_disk: 1,
            self._duplicate: 3,
            self._delay: 2,
            self._poison: 2,
            self.operator.act: 4,
        }

    def start(self) -> None:
        """Start the system for a life with some crash points, in which its clock jumps."""
        chosen = self._random.sample(crash_points.NAMES, _CRASH_POINTS_AT_ONCE)
        points = " ".join(f"{name}:{_CRASH_PROBABILITY}" for name in chosen)
        self._system.start(points, jumps_s=_JUMPS_S)

    def run(self, until_s: float) -> None:
        """Go on until that time of the monotonic clock."""
        while time.monotonic() < until_s:
            time.sleep(min(self._random.uniform(*_PAUSE_S), max(0.0, until_s - time.monotonic())))
            if not self._system.runs:
                # The supervisor gave up on a part that died while it started.
                self.start()
            (deed,) = self._random.choices(list(self._deeds), list(self._deeds.values()))
            deed()

    def restore(self) -> None:
        """Let there be room on the disk. Raises: requests.RequestException."""
        self._apply(0)

    def stored_stamp(self) -> int:
        """Of the configuration that is in force. Raises: requests.RequestException."""
        answer = self._system.request("GET", "/api/v1/config")
        answer.raise_for_status()
        return stamp_of(answer.json())

    # ---- what goes wrong --------------------------------------------------------------------

    def _kill_part(self) -> None:
        self._system.kill_part(self._random.choice(PART_NAMES))

    def _kill_child(self) -> None:
        self._system.kill_part("http", child=True)

    def _kill_supervisor(self) -> None:
        self._system.kill()
        self.start()

    def _change_configuration(self) -> None:
        self._try_to_apply(0)

    def _fill_disk(self) -> None:
        if self._try_to_apply(NO_ROOM):
            time.sleep(self._random.uniform(*_FULL_S))
        deadline_s = time.monotonic() + 30
        while not self._try_to_apply(0) and time.monotonic() < deadline_s:
            time.sleep(0.2)

    def _duplicate(self) -> None:
        """The same again, now and, of some that may be done by then, later."""
        copies = self._queue.copies(self._random.randint(1, 20))
        self._random.shuffle(copies)
        self._queue.publish(copies)

    def _delay(self) -> None:
        self._queue.delay(self._random.randint(1, 20), _DELAY_MS)

    def _poison(self) -> None:
        letters = [
            Outgoing(topic, self._random.randbytes(self._random.randint(0, 200)))
            for topic in Topic
            for _ in range(self._random.randint(0, 2))
        ]
        self.poisoned += self._queue.publish(letters)

    def _try_to_apply(self, min_free_bytes: int) -> bool:
        try:
            self._apply(min_free_bytes)
        except requests.RequestException:
            return False
        return True

    def _apply(self, min_free_bytes: int) -> None:
        self._stamp += 1
        document = {"settings": settings(self._stamp, min_free_bytes=min_free_bytes)}
        self._system.request("PUT", "/api/v1/config", json=document).raise_for_status()
        self.confirmed_stamp = self._stamp


class Queue:
    """The system's own queue, opened beside it."""

    def __init__(self, home: Path) -> None:
        self._path = home / "queue.db"
        self._bus = SqliteMessageBus(self._path, home / "run", SystemClock())
        self._bus.depth()  # makes the tables

    def publish(self, messages: list[Outgoing]) -> int:
        """How many were published; none if the queue cannot take them now."""
        try:
            self._bus.publish(messages)
        except AxiomError:
            return 0
        return len(messages)

    def copies(self, count: int) -> list[Outgoing]:
        """Copies of some of the messages that wait."""
        with closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT topic, lane, data FROM messages JOIN payloads USING (id)"
                " ORDER BY random() LIMIT ?",
                (count,),
            ).fetchall()
        return [Outgoing(topic, data, lane=lane) for topic, lane, data in rows]

    def delay(self, count: int, delay_ms: int) -> None:
        """Have some of the messages that wait be due later."""
        with closing(self._connect()) as connection:
            connection.execute(
                "UPDATE messages SET due_ms = due_ms + ? WHERE id IN"
                " (SELECT id FROM messages ORDER BY random() LIMIT ?)",
                (delay_ms, count),
            )

    def hurry(self) -> None:
        """Have all that waits be due now, as if that time had passed."""
        with closing(self._connect()) as connection:
            connection.execute(
                "UPDATE messages SET due_ms = 0 WHERE id NOT IN (SELECT id FROM leases)"
            )

    def depth(self) -> int:
        """How many messages are in the queue."""
        with closing(self._connect()) as connection:
            found: int = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
            return found

    def mentions(self, sop_instance_uid: str) -> list[str]:
        """In words, each message about the Instance."""
        with closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT topic, lane, attempt, due_ms FROM messages JOIN payloads USING (id)"
                " WHERE instr(data, ?)",
                (sop_instance_uid.encode(),),
            ).fetchall()
        now_ms = time.time() * 1000
        return [
            f"{topic} {lane}, attempt {attempt}, due in {(due_ms - now_ms) / 1000:.0f} s"
            for topic, lane, attempt, due_ms in rows
        ]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=20, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection
