"""What the disk gives at most: files kept as safely as received ones, and nothing else done.

Each file is flushed, then named, then its folder is flushed, then a record is appended to a log
that is flushed. Who wants the folder or the log flushed at the same time shares it, as in the
gateway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.adapters.embedded.group_commit import GroupCommit

# What the queue's log grows by for one message: nine pages.
_RECORD_BYTES = 9 * 4120


def kept_per_s(folder: Path, size: int, *, count: int, at_once: int) -> float:
    """So many files of `size` bytes, `at_once` at a time: how many in a second.

    Raises: OSError where the file system has no files without names.
    """
    data = os.urandom(size)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def append(records: Sequence[bytes]) -> None:
        os.write(log, b"".join(records))
        os.fdatasync(log)

    names: GroupCommit[None] = GroupCommit(lambda _: os.fsync(directory))
    queue: GroupCommit[bytes] = GroupCommit(append)

    def keep(number: int) -> None:
        file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            os.write(file, data)
            os.fdatasync(file)
            os.link(
                f"/proc/self/fd/{file}",
                f"{number:05}.dcm",
                dst_dir_fd=directory,
                follow_symlinks=True,
            )
        finally:
            os.close(file)
        names.submit(None)
        queue.submit(bytes(_RECORD_BYTES))

    try:
        with ThreadPoolExecutor(at_once) as pool:
            began_s = time.perf_counter()
            list(pool.map(keep, range(count)))
            return count / (time.perf_counter() - began_s)
    finally:
        os.close(log)
        os.close(directory)
