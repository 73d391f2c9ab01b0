"""Zip archives from strangers: looked through member by member, archives within archives too.

What is unpacked is counted as it comes, whatever the archive declares, and nothing is held whole
but an archive within an archive, which goes to a temporary file. No name is used as a path.
"""

from __future__ import annotations

import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Final, Self

from shared.errors import SourceRefusedError
from shared.pipeline.file_names import is_archive
from shared.ports import Buffer

_PIECE_BYTES: Final = 1 << 18
_IN_MEMORY_BYTES: Final = 16 << 20
_DEEPEST: Final = 3
_ENCRYPTED: Final = 0x1
# What zipfile and its decompressors raise about bytes that they cannot make sense of.
_STUMBLES: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive. `path` says where it is, by numbers: "3", or "3.0" for the first of
    the archive that is the fourth; `version` changes with its bytes.
    """

    path: str
    name: str
    version: str
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo


class Archive:
    """An open archive; used by one thread. A context manager.

    Every method raises SourceRefusedError, beyond a limit and for what is damaged.
    """

    def __init__(self, file: IO[bytes], source: str, *, max_members: int, max_bytes: int) -> None:
        self._source = source
        self._max_members, self._max_bytes = max_members, max_bytes
        self._unpacked = self._count = 0
        self._stack = ExitStack()
        with self._whole("it cannot be read as one"):
            self._archive = self._stack.enter_context(zipfile.ZipFile(file))

    def members(self) -> Iterator[Member]:
        """All files, those of archives within in their place."""
        self._count = self._unpacked = 0
        return self._members(self._archive, "", 0)

    def chunks(self, member: Member) -> Iterator[Buffer]:
        """Its bytes, in pieces."""
        # Encrypted, damaged, or compressed by other means.
        why = "a member cannot be unpacked"
        with ExitStack() as stack:
            with self._whole(why):
                file = stack.enter_context(member.archive.open(member.info))
            while True:
                with self._whole(why):
                    piece = file.read(_PIECE_BYTES)
                if not piece:
                    return
                self._unpacked += len(piece)
                self._expect_room()
                yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _members(self, archive: zipfile.ZipFile, prefix: str, depth: int) -> Iterator[Member]:
        for number, info in enumerate(archive.infolist()):
            if info.filename.endswith("/"):  # a folder; a name may be empty
                continue
            self._count += 1
            if self._count > self._max_members:
                raise self._refused(f"it has more than {self._max_members} members")
            self._expect_room()
            if info.flag_bits & _ENCRYPTED:
                raise self._refused("it is encrypted")
            version = f"{info.CRC:08x}-{info.file_size}"
            member = Member(f"{prefix}{number}", info.filename, version, archive, info)
            if not is_archive(info.filename):
                yield member
                continue
            if depth == _DEEPEST:
                raise self._refused(f"archives lie within archives more than {_DEEPEST} deep")
            with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as inner:
                for piece in self.chunks(member):
                    inner.write(piece)
                inner.seek(0)
                with ExitStack() as stack:
                    with self._whole("one within it cannot be read"):
                        opened = stack.enter_context(zipfile.ZipFile(inner))
                    yield from self._members(opened, f"{member.path}.", depth + 1)

    def _expect_room(self) -> None:
        if self._unpacked > self._max_bytes:
            raise self._refused(f"more than {self._max_bytes} bytes are unpacked")

    @contextmanager
    def _whole(self, why: str) -> Iterator[None]:
        """Whatever zipfile stumbles over, its own text left out, which may quote a name."""
        try:
            yield
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's
            raise self._refused(why) from None
        except _STUMBLES:
            raise self._refused(why) from None

    def _refused(self, why: str) -> SourceRefusedError:
        return SourceRefusedError(self._source, f"an archive: {why}")
