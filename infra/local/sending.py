"""A Storage SCU: files go out as they are, in the Transfer Syntax that each one has.

Of a file only its File Meta Information is read; the data set goes from the file to the socket
without being decoded or held, broken ones too, so that a receiver can be shown them.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.association import (
    Association,
    AssociationRejectedError,
    Peer,
)
from shared.adapters.destinations.outcomes import Outcome
from shared.adapters.destinations.upper_layer import MAX_CONTEXTS, Context, ProtocolError
from shared.dicom.data_set import DataSet, Overrun
from shared.dicom.outgoing import FileRange
from shared.errors import MalformedHeaderError, TruncatedInstanceError

SENT, WARNED, FAILED, SKIPPED = "sent", "warning", "failed", "skipped"

# PS3.10 7.1: preamble and prefix come before the File Meta Information, whose last Data Element is
# private and small in all that we know.
_META_START = 132
_META_READ_BYTES = 1 << 16
_MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_STREAM_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of one file. `dimse_status` is as "0000H", empty if it never got so far."""

    path: Path
    size: int
    outcome: str
    reason: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    dimse_status: str = ""
    ms: float = 0.0
    data_set_offset: int = field(default=0, repr=False)

    @property
    def context(self) -> Context:
        """The Presentation Context that it needs."""
        return Context(self.sop_class_uid, self.transfer_syntax_uid)


def find_files(arguments: Sequence[str]) -> list[Path]:
    """Files, the files below folders, and what globs match, in order and each once.

    Raises: FileNotFoundError naming the argument that there is nothing for.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        paths = [Path(argument)]
        if not paths[0].exists():
            paths = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
        if not paths:
            raise FileNotFoundError(argument)
        for path in paths:
            found.update(dict.fromkeys(_files_of(path)))
    return list(found)


def examine(path: Path) -> SendResult:
    """The file with the UIDs of its File Meta, outcome open (""), or why it cannot be sent."""
    size = 0
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_META_READ_BYTES)
    except OSError as error:
        return SendResult(path, size, FAILED, error.strerror or "unreadable")
    if head[128:_META_START] != b"DICM":
        return SendResult(path, size, FAILED, "not a DICOM Part 10 file")
    meta = DataSet(head, _META_START, is_implicit_vr=False, is_little_endian=True)
    try:
        end = meta.scan_group(0x0002, len(head))
        sop_class_uid = _text(meta, _MEDIA_STORAGE_SOP_CLASS_UID)
        sop_instance_uid = _text(meta, _MEDIA_STORAGE_SOP_INSTANCE_UID)
        transfer_syntax_uid = _text(meta, _TRANSFER_SYNTAX_UID)
    except (Overrun, MalformedHeaderError):
        return SendResult(path, size, FAILED, "its File Meta Information cannot be read")
    uids = {
        "Media Storage SOP Class UID": sop_class_uid,
        "Media Storage SOP Instance UID": sop_instance_uid,
        "Transfer Syntax UID": transfer_syntax_uid,
    }
    lacking = ", ".join(name for name, uid in uids.items() if not uid)
    if lacking:
        return SendResult(path, size, FAILED, f"its File Meta Information lacks {lacking}")
    if sop_class_uid == _MEDIA_STORAGE_DIRECTORY:
        return SendResult(path, size, SKIPPED, "a DICOMDIR is no Instance")
    return SendResult(
        path, size, "", "", sop_class_uid, sop_instance_uid, transfer_syntax_uid,
        data_set_offset=end,
    )  # fmt: skip


def send(files: Iterable[SendResult], peer: Peer) -> Iterator[SendResult]:
    """Send the files that `examine` found fit, in batches of as many contexts as fit.

    An association that breaks fails the file it broke on; the others go on over a new one. A peer
    that cannot be reached fails all that are left of the batch.
    """
    for batch in _batches(files):
        waiting = list(reversed(batch))
        while waiting:
            contexts = list(dict.fromkeys(file.context for file in reversed(waiting)))
            try:
                association = Association(peer, contexts)
            except (OSError, ProtocolError, AssociationRejectedError) as error:
                reason = _refusal(error, peer)
                yield from (replace(file, outcome=FAILED, reason=reason) for file in waiting[::-1])
                break
            try:
                yield from _send_while_it_lasts(association, waiting)
            finally:
                association.abort()


class _File:
    """A RangeReader over a file on disk."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = os.fstat(self._file.fileno()).st_size if length is None else offset + length
        while offset < end:
            count = min(_STREAM_PIECE_BYTES, end - offset)
            piece = os.pread(self._file.fileno(), count, offset)
            if not piece:
                return
            yield piece
            offset += len(piece)

    def fileno(self) -> int:
        return self._file.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._file.close()


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if not name.startswith(".")
    )


def _text(meta: DataSet, tag: int) -> str:
    values = meta.values(tag) if tag in meta.entries else None
    return str(values[0]) if values else ""


def _batches(files: Iterable[SendResult]) -> Iterator[list[SendResult]]:
    """The files in groups that need at most MAX_CONTEXTS contexts."""
    by_context: dict[Context, list[SendResult]] = {}
    for file in files:
        by_context.setdefault(file.context, []).append(file)
    groups = list(by_context.values())
    for start in range(0, len(groups), MAX_CONTEXTS):
        yield [file for group in groups[start : start + MAX_CONTEXTS] for file in group]


def _send_while_it_lasts(
    association: Association, waiting: list[SendResult]
) -> Iterator[SendResult]:
    """Send from the end of `waiting` and shorten it, until it is empty or the association ends."""
    while waiting:
        file = waiting.pop()
        if not association.accepts(file.context):
            reason = "the peer does not take its SOP Class in its Transfer Syntax"
            yield replace(file, outcome=FAILED, reason=reason)
            continue
        began_s = time.perf_counter()
        try:
            with _File(file.path) as reader:
                body = FileRange(reader, file.data_set_offset, file.size - file.data_set_offset)
                response = association.store(file.context, file.sop_instance_uid, [body])
        except (OSError, ProtocolError, TruncatedInstanceError) as error:
            # Its texts are ours, or the operating system's.
            reason = f"the association ended: {error}"
            yield replace(file, outcome=FAILED, reason=reason, ms=_ms_since(began_s))
            return
        verdict = outcomes.dimse_status(response.status)
        outcome = {Outcome.SUCCESS: SENT, Outcome.WARNING: WARNED}.get(verdict.outcome, FAILED)
        yield replace(
            file,
            outcome=outcome,
            reason="" if outcome == SENT else response.words or verdict.meaning,
            dimse_status=f"{response.status:04X}H",
            ms=_ms_since(began_s),
        )
    association.release()


def _refusal(error: Exception, peer: Peer) -> str:
    if isinstance(error, AssociationRejectedError):
        rejected = error.rejected
        verdict = outcomes.association_rejection(rejected.result, rejected.source, rejected.reason)
        return f"the association was rejected: {verdict.meaning}"
    return f"no association with {peer.host}:{peer.port}: {error}"


def _ms_since(began_s: float) -> float:
    return round(1000 * (time.perf_counter() - began_s), 1)
