"""Received files for the tests of destinations, and what goes out of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from shared.dicom.header import Header, read_header
from shared.dicom.outgoing import OutgoingInstance


class ReceivedFile:
    """An ObjectReader over a file, with a descriptor for sendfile(2) unless told otherwise."""

    def __init__(self, path: Path, *, has_descriptor: bool = True) -> None:
        self.name = path.name
        self.size = path.stat().st_size
        self._file = path.open("rb")
        self._has_descriptor = has_descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            piece = self.read_at(offset, min(1 << 20, end - offset))
            yield piece
            offset += len(piece)

    def fileno(self) -> int | None:
        return self._file.fileno() if self._has_descriptor else None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def outgoing(
    folder: Path, received: bytes, edited: bytes | None = None, *, has_descriptor: bool = True
) -> OutgoingInstance:
    """`received`, kept in `folder`, on its way out; with the Header of `edited` if it is given."""
    path = folder / f"received-{len(list(folder.iterdir()))}"
    path.write_bytes(received)
    reader = ReceivedFile(path, has_descriptor=has_descriptor)
    header = read_header(reader)
    return OutgoingInstance(
        header=header if edited is None else Header.parse(edited, file_size=len(edited)),
        reader=reader,
        body_offset=header.body_offset,
        unchanged=edited is None,
        calling_ae_title="SENDER",
        receipt_id="receipt-1",
    )
