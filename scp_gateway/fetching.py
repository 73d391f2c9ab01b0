"""Instances fetched ahead of the one that is sent: several Series at once, in the order in which
they are sent.

What is fetched waits in temporary files, so many and so large at most: a receiver that is slow has
the store wait, not memory grow. A Series comes in one answer where it can, which costs a store far
less than an answer for each Instance.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, Self

from msgspec.structs import replace

from shared.dicom.spooling import TemporaryFile
from shared.errors import InstanceTooLargeError
from shared.ports import Buffer, FoundInstance, Retrieval, Retrieved

_AT_ONCE: Final = 4
# Each holds a file descriptor, of which a process may have a thousand.
_MOST_FILES: Final = 12
_MOST_BYTES: Final = 128 << 20
# How long to wait for the next Instance before whoever sends looks after the peer.
_LOOK_EVERY_S: Final = 0.1


class Archive(Protocol):
    """What is fetched from."""

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]: ...


class Spooled(TemporaryFile):
    """An ObjectReader of what was fetched; `uid` as the archive says it."""

    name = ""

    def __init__(self, retrieved: Retrieved, most_bytes: int) -> None:
        super().__init__(_limited(retrieved.chunks, most_bytes))
        self.uid = retrieved.uid

    def close(self) -> None:
        """It is gone; twice is once."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lane:
    """What came of one retrieval, under the lock of Fetching."""

    def __init__(self, wanted: Retrieval) -> None:
        self.wanted = wanted
        self.came: deque[Spooled] = deque()
        self.is_over = False
        self.error: BaseException | None = None
        # The store had to wait in the middle of its answer. Where it broke off then, that is no
        # fault of its own.
        self.has_waited = False


class Fetching:
    """Fetches `wanted`, each in a thread of a few. Used by one thread, and to be closed."""

    def __init__(
        self, archive: Archive, wanted: Sequence[Retrieval], *, max_instance_bytes: int
    ) -> None:
        self._archive, self._most_bytes = archive, max_instance_bytes
        self._lanes = [Lane(one) for one in wanted]
        self._changed = threading.Condition()
        self._begun = 0  # how many lanes somebody fetches or has fetched
        self._sent = 0  # the lane that is sent from
        self._files = self._bytes = 0  # that wait
        self._is_closed = False
        for number in range(min(_AT_ONCE, len(wanted))):
            threading.Thread(target=self._fetch, name=f"fetch-{number}", daemon=True).start()

    def each(self) -> Iterator[Lane]:
        """Each of `wanted`, to be read with `files` before the next."""
        for number, lane in enumerate(self._lanes):
            with self._changed:
                self._sent = number
                self._changed.notify_all()
            yield lane

    def files(self, lane: Lane) -> Iterator[Spooled | None]:
        """What comes of it; None while nothing is there yet.

        Raises: SourceUnavailableError and its kin, InstanceTooLargeError; OSError where there is no
        room to spool.
        """
        is_over = False
        while not is_over:
            with self._changed:
                if not lane.came and not lane.is_over:
                    self._changed.wait(_LOOK_EVERY_S)
                file = lane.came.popleft() if lane.came else None
                if file is not None:
                    self._files -= 1
                    self._bytes -= file.size
                    self._changed.notify_all()
                is_over = lane.is_over and not lane.came
            if file is not None or not is_over:
                yield file
        if lane.error is not None:
            raise lane.error

    def once_more(self, lane: Lane, missing: Sequence[FoundInstance]) -> Iterator[Spooled | None]:
        """These of it again, each by itself. Raises: as `files`."""
        again = replace(lane.wanted, instances=tuple(missing), is_whole=False)
        for retrieved in self._archive.retrieve(again):
            yield Spooled(retrieved, self._most_bytes)

    def close(self) -> None:
        """Fetch nothing more; what is on its way is dropped."""
        with self._changed:
            self._is_closed = True
            for lane in self._lanes:
                lane.came.clear()
            self._changed.notify_all()

    # ---- the threads that fetch

    def _fetch(self) -> None:
        while True:
            with self._changed:
                if self._is_closed or self._begun == len(self._lanes):
                    return
                lane, number = self._lanes[self._begun], self._begun
                self._begun += 1
            error: BaseException | None = None
            try:
                self._fill(lane, number)
            except BaseException as raised:
                error = raised
            with self._changed:
                lane.error, lane.is_over = error, True
                self._changed.notify_all()

    def _fill(self, lane: Lane, number: int) -> None:
        for retrieved in self._archive.retrieve(lane.wanted):
            file = Spooled(retrieved, self._most_bytes)
            with self._changed:
                if self._is_closed:
                    return
                lane.came.append(file)
                self._files += 1
                self._bytes += file.size
                self._changed.notify_all()
                while not self._may_go_on(lane, number):
                    lane.has_waited = True
                    self._changed.wait()

    def _may_go_on(self, lane: Lane, number: int) -> bool:
        has_room = self._files < _MOST_FILES and self._bytes < _MOST_BYTES
        # Others may hold all the room while the one that is sent from has nothing.
        is_next = number == self._sent and not lane.came
        return has_room or is_next or self._is_closed


def _limited(pieces: Iterator[Buffer], most_bytes: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most_bytes:
            raise InstanceTooLargeError(most_bytes)
        yield bytes(piece)
