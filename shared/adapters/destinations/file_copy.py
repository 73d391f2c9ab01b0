"""Appending a part of one file to another, in the fastest way that there is for it."""

from __future__ import annotations

import errno
import os
import threading
from typing import Final

_PIECE_BYTES: Final = 1 << 20
_PIECE_IN_KERNEL_BYTES: Final = 1 << 30
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
# What a file system says that has no copy in the kernel.
_NO_COPY: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}


def append_range(source: int, offset: int, length: int, file: int, head: bytes = b"") -> None:
    """Append `head` and then that part of `source` to `file`, whose position is its end.

    Raises: OSError, EIO if `source` is shorter.
    """
    # The kernel copies page by page: where these do not lie alike it writes each in two pieces,
    # which takes twice as long as going through memory of ours. Blocks can be shared only as they
    # lie, too.
    start = os.lseek(file, 0, os.SEEK_CUR) + len(head)
    if (start - offset) % _PAGE_BYTES == 0:
        write_all(file, head)
        head = b""
        if _append_in_kernel(source, offset, length, file):
            return
    buffer = _thread.buffer
    while head or length:
        count = os.preadv(source, [buffer[:length]], offset)
        if length and not count:
            raise _shorter()
        offset, length = offset + count, length - count
        # Both in one call: the page in which one ends and the other begins is written once.
        written = os.writev(file, [head, buffer[:count]])
        write_all(file, memoryview(head)[written:])
        write_all(file, buffer[max(0, written - len(head)) : count])
        head = b""


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write all of it, however little the system takes at once. Raises: OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class _Thread(threading.local):
    """What a thread copies through. Memory that is new each time costs a tenth more."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_PIECE_BYTES))


_thread: Final = _Thread()


def _append_in_kernel(source: int, offset: int, length: int, file: int) -> bool:
    """The same by copy_file_range(2); False if it cannot be done here, and nothing is written."""
    if not hasattr(os, "copy_file_range"):
        return False
    done = 0
    while done < length:
        try:
            count = os.copy_file_range(
                source, file, min(_PIECE_IN_KERNEL_BYTES, length - done), offset + done
            )
        except OSError as error:
            if done or error.errno not in _NO_COPY:
                raise
            return False
        if not count:
            if done:
                raise _shorter()
            # Some file systems say 0 where they mean that they cannot.
            return False
        done += count
    return True


def _shorter() -> OSError:
    return OSError(errno.EIO, "the file is shorter than it was")
