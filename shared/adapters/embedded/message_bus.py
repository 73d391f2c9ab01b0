"""Messages in SQLite, with leases: the embedded mode's Pub/Sub."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock, local
from typing import Any

from msgspec import Struct, field

from shared.adapters.embedded import queue_time
from shared.adapters.embedded.database import Database
from shared.adapters.embedded.deferral import Deferral
from shared.adapters.embedded.lessees import Lessee
from shared.adapters.embedded.queue_time import QueueTime
from shared.errors import StorageUnavailableError
from shared.ports import Backlog, Clock, Outgoing

_TOPIC = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
# Of every so many messages leased, one is routine while both kinds wait.
_ROUTINE_EVERY = 4
_HIGH, _ROUTINE = 0, 1

_SCHEMA = (
    # AUTOINCREMENT: an id never comes again, so a late acknowledgement hits no other message.
    """
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        lane TEXT NOT NULL,
        routine INTEGER NOT NULL,           -- 0 goes first
        due_ms INTEGER NOT NULL,            -- a lease or a delay moves it into the future
        attempt INTEGER NOT NULL DEFAULT 0,
        published_ms INTEGER NOT NULL,
        first_attempt_ms INTEGER
    )
    """,
    "CREATE INDEX IF NOT EXISTS due ON messages (topic, lane, routine, due_ms)",
    # Apart, so that leasing a message does not write its bytes again.
    """
    CREATE TABLE IF NOT EXISTS payloads (
        id INTEGER PRIMARY KEY,
        attributes TEXT NOT NULL,
        data BLOB NOT NULL
    )
    """,
    # Who leased what is leased, so that the death of a process does not have its messages wait.
    "CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY, lessee TEXT NOT NULL)",
    *queue_time.SCHEMA,
)

# Walks from lane to lane in the index: its cost grows with the lanes and with what may be leased,
# not with the backlog.
_DUE = """
    WITH RECURSIVE lanes (lane) AS (
        SELECT min(lane) FROM messages WHERE topic = :topic
        UNION ALL
        SELECT (SELECT min(lane) FROM messages WHERE topic = :topic AND lane > lanes.lane)
        FROM lanes WHERE lane IS NOT NULL
    ),
    kinds (routine) AS (VALUES (0), (1))
    SELECT lanes.lane, kinds.routine, messages.id
    FROM lanes JOIN kinds JOIN messages ON messages.id IN (
        SELECT id FROM messages
        WHERE topic = :topic AND lane = lanes.lane AND routine = kinds.routine
            AND due_ms <= :now_ms
        ORDER BY due_ms, id LIMIT :limit
    )
    WHERE lanes.lane IS NOT NULL
        AND lanes.lane NOT IN (SELECT value FROM json_each(:lanes_busy))
    ORDER BY lanes.lane, kinds.routine, messages.due_ms, messages.id
"""
_LEASE = """
    UPDATE messages
    SET due_ms = :until_ms, attempt = attempt + 1,
        first_attempt_ms = coalesce(first_attempt_ms, :now_ms)
    WHERE id IN (SELECT value FROM json_each(:ids)) AND due_ms <= :now_ms
    RETURNING id, topic, lane, routine, attempt, published_ms, first_attempt_ms
"""


class Leased(Struct, frozen=True):
    """A message that nobody else gets until its lease ends. `attempt` counts from 1."""

    message_id: int
    topic: str
    lane: str
    data: bytes
    attributes: Mapping[str, str]
    attempt: int
    published_at: datetime
    first_attempt_at: datetime
    high_priority: bool = False


class Depth(Struct, frozen=True):
    """What waits in a topic, leased messages included."""

    messages: int = 0
    oldest_age_s: float = 0.0
    lanes: Mapping[str, int] = field(default_factory=dict)


class SqliteMessageBus:
    """MessageBus of the embedded mode, for any number of processes on one machine.

    Each topic has one subscription: a message is leased, then settled, once its work is durable.
    A lease that ends unsettled makes the message due again; the leases of a killed process need not
    be waited for, see `reclaim`. Threads and stages that publish or settle at the same time share
    one transaction and its fsync. Times are the queue's own (see `queue_time`).

    `run_dir` holds a FIFO for each topic, through which a publisher wakes those who `wait`.
    """

    def __init__(self, path: Path, run_dir: Path, clock: Clock) -> None:
        self._database = Database(path, _SCHEMA)
        self._bells = _Bells(run_dir)
        self._lessee = Lessee(run_dir)
        self._time = QueueTime(self._database, clock)
        self._lock = Lock()
        self._thread = local()
        self._leases = 0  # how many were given: decides whose turn it is

    def publish(self, messages: Iterable[Outgoing]) -> None:
        """Returns once all are durable; all or none are, even after a crash.

        Raises: StorageUnavailableError; ValueError for a topic that cannot be one.
        """
        outgoing = _checked(messages)
        kept: _Kept | None = getattr(self._thread, "kept", None)
        if kept is not None:
            kept.messages.extend(one for one in outgoing if one.topic in kept.topics)
            outgoing = [one for one in outgoing if one.topic not in kept.topics]
        deferral: Deferral | None = getattr(self._thread, "deferral", None)
        if deferral is None:
            self.publish_now(outgoing)
        else:
            deferral.publish(outgoing)

    def publish_now(self, outgoing: Sequence[Outgoing]) -> None:
        """As `publish`, of what nobody keeps."""
        if outgoing:
            now_ms = self._now_ms()
            self._database.write(lambda connection: _insert(connection, outgoing, now_ms))
            self._bells.ring({message.topic for message in outgoing})

    @contextmanager
    def deferring(self, deferral: Deferral) -> Iterator[None]:
        """What this thread publishes in the block is kept back there."""
        self._thread.deferral = deferral
        try:
            yield
        finally:
            self._thread.deferral = None

    @contextmanager
    def keeping(self, topics: Collection[str]) -> Iterator[list[Outgoing]]:
        """What this thread publishes to `topics` in the block is put into the list instead: whoever
        asked for it sees to it, and acknowledges nothing before.
        """
        kept = self._thread.kept = _Kept(topics, [])
        try:
            yield kept.messages
        finally:
            self._thread.kept = None

    def lease(
        self,
        topics: Collection[str],
        *,
        limit: int,
        lease_s: float,
        lanes_busy: Collection[str] = (),
        lane_room: Callable[[str, str], int] | None = None,
    ) -> list[Leased]:
        """Up to `limit` messages that are due, for `lease_s` seconds; none of `lanes_busy`.

        Lanes take turns. In a lane the messages of high priority come first, but while both kinds
        wait every fourth is a routine one; of each kind the longest due comes first. `lane_room`
        says how many a topic's lane may get at most. Raises: StorageUnavailableError.
        """
        self._lessee.announce()
        while limit > 0:
            now_ms = self._now_ms()
            ids = self._choose(topics, limit, now_ms, lanes_busy, lane_room)
            if not ids:
                break
            leased = self._take(ids, now_ms, now_ms + round(lease_s * 1000))
            if leased:
                return leased
            # Another process was faster for all of them: look again.
        return []

    def reclaim(self) -> int:
        """Make due what processes leased that have died since; how many messages it was.

        Their attempts count: a message may be what the process died of.
        """
        with self._database.reading() as connection:
            lessees = [row[0] for row in connection.execute("SELECT DISTINCT lessee FROM leases")]
        reclaimed = 0
        for name in filter(self._lessee.is_dead, lessees):
            reclaimed += self._database.write(partial(_reclaim, name, self._now_ms()))
            self._lessee.forget(name)
        return reclaimed

    def now(self) -> datetime:
        """The queue's own time, to compare with the times of messages."""
        return _at(self._now_ms())

    def extend(self, message_ids: Collection[int], lease_s: float) -> None:
        """Let the leases of messages that are still being worked on end `lease_s` from now."""
        if message_ids:
            until_ms = self._now_ms() + round(lease_s * 1000)
            self._database.write(
                lambda connection: _postpone(connection, message_ids, until_ms), may_be_lost=True
            )

    def settle(
        self,
        acknowledged: Collection[int] = (),
        later: Collection[tuple[int, float]] = (),
        publish: Iterable[Outgoing] = (),
        handed_back: Collection[int] = (),
    ) -> None:
        """One transaction: `acknowledged` messages are gone, `later` ones are due again after so
        many seconds, `publish` is published, and `handed_back` messages are due at once as if they
        had not been leased. A message that is gone is no error.

        A power cut, and nothing less, may undo it as a whole until something durable is published:
        `publish` is for what came of these messages, which are delivered again then.
        Raises: StorageUnavailableError.
        """
        outgoing = _checked(publish)
        if not (acknowledged or later or outgoing or handed_back):
            return
        now_ms = self._now_ms()

        def write(connection: sqlite3.Connection) -> None:
            if acknowledged:
                ids = json.dumps(list(acknowledged))
                for table in ("messages", "payloads", "leases"):
                    connection.execute(
                        f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608
                        (ids,),
                    )
            for message_id, delay_s in later:
                _postpone(connection, [message_id], now_ms + round(delay_s * 1000))
            unleased = [*(message_id for message_id, _ in later), *handed_back]
            if unleased:
                connection.execute(
                    "DELETE FROM leases WHERE id IN (SELECT value FROM json_each(?))",
                    (json.dumps(unleased),),
                )
            if handed_back:
                connection.execute(
                    "UPDATE messages SET due_ms = ?, attempt = max(0, attempt - 1),"
                    " first_attempt_ms = CASE WHEN attempt > 1 THEN first_attempt_ms END"
                    " WHERE id IN (SELECT value FROM json_each(?))",
                    (now_ms, json.dumps(list(handed_back))),
                )
            _insert(connection, outgoing, now_ms)

        self._database.write(write, may_be_lost=True)
        self._bells.ring({message.topic for message in outgoing})

    def depth(self, topic: str | None = None) -> dict[str, Depth]:
        """What waits, by topic; a topic where nothing waits is left out.

        It counts, which takes a quarter of a second for a million messages: ask now and then.
        """
        now_ms = self._now_ms()
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT counted.topic, counted.lane, number, published_ms FROM ("
                "  SELECT topic, lane, count(*) AS number, min(id) AS oldest FROM messages"
                "  WHERE topic = coalesce(?, topic) GROUP BY topic, lane"
                ") AS counted JOIN messages ON messages.id = oldest",
                (topic,),
            ).fetchall()
        depths: dict[str, Depth] = {}
        for name, lane, number, published_ms in rows:
            known = depths.get(name, Depth())
            depths[name] = Depth(
                known.messages + number,
                max(known.oldest_age_s, (now_ms - published_ms) / 1000),
                {**known.lanes, lane: number},
            )
        return depths

    def in_order(self, topics: Collection[str], *, limit: int, after: int = 0) -> list[Leased]:
        """Up to `limit` messages as they were published, whose ids are above `after`, and nothing
        is leased: for whoever alone moves them elsewhere. Raises: StorageUnavailableError.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT messages.id, topic, lane, routine, attempt, published_ms, attributes, data"
                " FROM messages JOIN payloads USING (id)"
                " WHERE messages.id > ? AND topic IN (SELECT value FROM json_each(?))"
                " ORDER BY messages.id LIMIT ?",
                (after, json.dumps(list(topics)), limit),
            ).fetchall()
        return [
            Leased(
                message_id,
                topic,
                lane,
                data,
                json.loads(attributes),
                attempt,
                _at(published_ms),
                _at(published_ms),
                routine == _HIGH,
            )
            for message_id, topic, lane, routine, attempt, published_ms, attributes, data in rows
        ]

    def position(self) -> int:
        """No message that was published before has a larger id, and every later one has."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'messages'"
            ).fetchone()
        return int(found[0]) if found else 0

    def has_left(self, position: int, topics: Collection[str]) -> bool:
        """Whether what was published to these topics before that position is gone."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT 1 FROM messages"
                " WHERE id <= ? AND topic IN (SELECT value FROM json_each(?)) LIMIT 1",
                (position, json.dumps(list(topics))),
            ).fetchone()
        return found is None

    def backlog(self, topics: Collection[str], *, at_most: int) -> Backlog:
        """As QueueGauge. Both questions are answered by the index: where nothing waits they cost
        microseconds, and a hundred thousand messages some milliseconds.
        """
        now_ms = self._now_ms()
        messages, oldest_ms = 0, now_ms
        with self._database.reading() as connection:
            for topic in topics:
                (number,) = connection.execute(
                    "SELECT count(*) FROM (SELECT 1 FROM messages WHERE topic = ? LIMIT ?)",
                    (topic, at_most),
                ).fetchone()
                messages += number
                for routine in (_HIGH, _ROUTINE) if number else ():
                    found = connection.execute(
                        "SELECT due_ms FROM messages WHERE topic = ? AND lane = '' AND routine = ?"
                        " ORDER BY due_ms LIMIT 1",
                        (topic, routine),
                    ).fetchone()
                    oldest_ms = min(oldest_ms, found[0]) if found else oldest_ms
        return Backlog(messages, (now_ms - oldest_ms) / 1000)

    def mentioned(self, words: Collection[str], topics: Collection[str]) -> set[str]:
        """As QueueGauge."""
        wanted = {word: word.encode() for word in words}
        found: set[str] = set()
        with self._database.reading() as connection:
            for (data,) in connection.execute(
                "SELECT data FROM messages JOIN payloads USING (id)"
                " WHERE topic IN (SELECT value FROM json_each(?))",
                (json.dumps(list(topics)),),
            ):
                found.update(word for word, text in wanted.items() if text in data)
        return found

    def wait(self, topics: Collection[str], timeout_s: float, also: Sequence[int] = ()) -> set[str]:
        """Return when something was published to one of `topics`, when a descriptor of `also` can
        be read, or after `timeout_s` seconds. Returns the topics to which something was.

        A message can be due without this returning early (its lease or delay ended, its publisher
        was killed between commit and wake-up), and this can return for nothing: lease, and see.
        """
        return self._bells.wait(topics, timeout_s, also)

    def close(self) -> None:
        """Close files; a later call opens them again. What is leased then is as a dead one's."""
        self._database.close()
        self._bells.close()
        self._lessee.close()

    def _choose(
        self,
        topics: Collection[str],
        limit: int,
        now_ms: int,
        lanes_busy: Collection[str],
        lane_room: Callable[[str, str], int] | None,
    ) -> list[int]:
        lanes: dict[tuple[str, str], _Lane] = {}
        with self._database.reading() as connection:
            for topic in topics:
                for name, routine, message_id in connection.execute(
                    _DUE,
                    {
                        "topic": topic,
                        "now_ms": now_ms,
                        "limit": limit,
                        "lanes_busy": json.dumps(list(lanes_busy)),
                    },
                ):
                    lane = lanes.get((topic, name))
                    if lane is None:
                        room = limit if lane_room is None else lane_room(topic, name)
                        lane = lanes[topic, name] = _Lane(room)
                    lane.add(routine, message_id)
        if not lanes:
            return []
        with self._lock:
            turn = self._leases
            chosen = list(_in_turns(list(lanes.values()), limit, turn))
            self._leases += len(chosen)
        return chosen

    def _take(self, ids: Sequence[int], now_ms: int, until_ms: int) -> list[Leased]:
        values = {"ids": json.dumps(ids), "now_ms": now_ms, "until_ms": until_ms}

        def take(connection: sqlite3.Connection) -> list[Any]:
            rows = connection.execute(_LEASE, values).fetchall()
            connection.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?)",
                [(row[0], self._lessee.name) for row in rows],
            )
            return rows

        # A lease that a power cut takes had nobody left to hold it.
        rows = self._database.write(take, may_be_lost=True)
        with self._database.reading() as connection:
            payloads = {
                message_id: (data, attributes)
                for message_id, data, attributes in connection.execute(
                    "SELECT id, data, attributes FROM payloads"
                    " WHERE id IN (SELECT value FROM json_each(?))",
                    (json.dumps([row[0] for row in rows]),),
                )
            }
        leased = {}
        for message_id, topic, lane, routine, attempt, published_ms, first_ms in rows:
            if message_id not in payloads:
                continue  # who had it before, and for too long, has settled it since
            data, attributes = payloads[message_id]
            leased[message_id] = Leased(
                message_id,
                topic,
                lane,
                data,
                json.loads(attributes),
                attempt,
                _at(published_ms),
                _at(first_ms),
                routine == _HIGH,
            )
        return [leased[message_id] for message_id in ids if message_id in leased]

    def _now_ms(self) -> int:
        return self._time.now_ms()


class _Kept(Struct, frozen=True):
    topics: Collection[str]
    messages: list[Outgoing]


class _Lane:
    """What of one lane is due, and may be taken."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._due: tuple[deque[int], deque[int]] = (deque(), deque())

    def add(self, routine: int, message_id: int) -> None:
        self._due[routine].append(message_id)

    def next(self, prefer: int) -> int | None:
        due = self._due[prefer] or self._due[1 - prefer]
        if not due or self.room <= 0:
            return None
        self.room -= 1
        return due.popleft()


def _in_turns(lanes: Sequence[_Lane], limit: int, turn: int) -> Iterator[int]:
    """Up to `limit` ids, a lane after the other; `turn` counts on from one call to the next."""
    start = turn % len(lanes)
    waiting = deque([*lanes[start:], *lanes[:start]])
    rounds = turn // len(lanes)
    while waiting and limit > 0:
        for _ in range(len(waiting)):
            lane = waiting.popleft()
            chosen = lane.next(_ROUTINE if rounds % _ROUTINE_EVERY == 3 else _HIGH)
            if chosen is not None:
                yield chosen
                waiting.append(lane)
                limit -= 1
                if limit == 0:
                    return
        rounds += 1


class _Bells:
    """A FIFO for each topic: who publishes writes a byte into it, who waits reads it empty."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = Lock()
        self._open: dict[str, int] = {}

    def ring(self, topics: Iterable[str]) -> None:
        for topic in topics:
            # It rings already (EAGAIN), or cannot be made: who waits looks again soon anyhow.
            with suppress(OSError, StorageUnavailableError):
                os.write(self._fd(topic), b"\0")

    def wait(self, topics: Iterable[str], timeout_s: float, also: Sequence[int]) -> set[str]:
        fds = {self._fd(topic): topic for topic in topics}
        poll = select.poll()
        for fd in (*fds, *also):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(max(0.0, timeout_s) * 1000)}
        rang = set()
        for fd in ready.intersection(fds):
            with suppress(BlockingIOError):  # another who waits was faster
                os.read(fd, 65536)
                rang.add(fds[fd])
        return rang

    def close(self) -> None:
        with self._lock:
            for fd in self._open.values():
                os.close(fd)
            self._open.clear()

    def _fd(self, topic: str) -> int:
        with self._lock:
            if topic not in self._open:
                try:
                    self._run_dir.mkdir(parents=True, exist_ok=True)
                    with suppress(FileExistsError):
                        os.mkfifo(self._path(topic), 0o600)
                    # For both, or it would read as ended whenever there is no publisher, and
                    # could not be opened whenever nobody waits.
                    self._open[topic] = os.open(
                        self._path(topic), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
                    )
                except OSError as error:
                    reason = errno.errorcode.get(error.errno or 0, "")
                    raise StorageUnavailableError(f"{topic}.fifo: {reason}") from error
            return self._open[topic]

    def _path(self, topic: str) -> Path:
        return self._run_dir / f"{topic}.fifo"


def _checked(messages: Iterable[Outgoing]) -> list[Outgoing]:
    outgoing = list(messages)
    for message in outgoing:
        if not _TOPIC.fullmatch(message.topic):
            raise ValueError(f"not a topic's name: {message.topic!r}")
    return outgoing


def _insert(connection: sqlite3.Connection, messages: Sequence[Outgoing], now_ms: int) -> None:
    for message in messages:
        inserted = connection.execute(
            "INSERT INTO messages (topic, lane, routine, due_ms, published_ms)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                str(message.topic),
                message.lane,
                _HIGH if message.high_priority else _ROUTINE,
                now_ms,
                now_ms,
            ),
        )
        connection.execute(
            "INSERT INTO payloads (id, attributes, data) VALUES (?, ?, ?)",
            (inserted.lastrowid, json.dumps(dict(message.attributes)), message.data),
        )


def _postpone(connection: sqlite3.Connection, message_ids: Collection[int], until_ms: int) -> None:
    connection.execute(
        "UPDATE messages SET due_ms = ? WHERE id IN (SELECT value FROM json_each(?))",
        (until_ms, json.dumps(list(message_ids))),
    )


def _reclaim(lessee: str, now_ms: int, connection: sqlite3.Connection) -> int:
    changed = connection.execute(
        "UPDATE messages SET due_ms = min(due_ms, ?)"
        " WHERE id IN (SELECT id FROM leases WHERE lessee = ?)",
        (now_ms, lessee),
    ).rowcount
    connection.execute("DELETE FROM leases WHERE lessee = ?", (lessee,))
    return changed


def _at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
