"""A Storage SCU: files go out as they are, in the Transfer Syntax that each one has.

No data set is decoded or held whole; pynetdicom reads each file in pieces while it sends.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

# PS3.8 9.3.2: Presentation Context IDs are the odd numbers from 1 to 255.
MAX_CONTEXTS = 128

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S = 10.0, 120.0

SENT, WARNED, FAILED, SKIPPED = "sent", "warning", "failed", "skipped"


@dataclass(frozen=True, slots=True)
class Peer:
    """A Storage SCP, and who we say that we are."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str


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
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return SendResult(path, size, FAILED, "not a DICOM Part 10 file")
        meta, _ = split_dataset(path)
        sop_class_uid = str(meta.get("MediaStorageSOPClassUID", ""))
        sop_instance_uid = str(meta.get("MediaStorageSOPInstanceUID", ""))
        transfer_syntax_uid = str(meta.get("TransferSyntaxUID", ""))
    except OSError as error:
        return SendResult(path, size, FAILED, error.strerror or "unreadable")
    except Exception:
        # pydicom raises errors of many kinds for broken files, and may quote Values in them.
        return SendResult(path, size, FAILED, "its File Meta Information cannot be read")
    if not (sop_class_uid and sop_instance_uid and transfer_syntax_uid):
        return SendResult(path, size, FAILED, "its File Meta Information lacks a UID")
    if sop_class_uid == _MEDIA_STORAGE_DIRECTORY:
        return SendResult(path, size, SKIPPED, "a DICOMDIR is no Instance")
    return SendResult(path, size, "", "", sop_class_uid, sop_instance_uid, transfer_syntax_uid)


def send(files: Iterable[SendResult], peer: Peer) -> Iterator[SendResult]:
    """Send the files that `examine` found fit, in batches of as many contexts as fit.

    An association that breaks fails the file it broke on; the others go on over a new one. A peer
    that cannot be reached fails all that are left.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True
    for batch in _batches(files):
        waiting = list(batch)
        while waiting:
            association = _associate(waiting, peer)
            if not association.is_established:
                reason = _refusal(association, peer)
                yield from (replace(file, outcome=FAILED, reason=reason) for file in waiting)
                break
            while waiting and association.is_established:
                yield _send_one(association, waiting.pop(0), message_id=len(waiting) % 65535 + 1)
            if association.is_established:
                association.release()


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if not name.startswith(".")
    )


def _batches(files: Iterable[SendResult]) -> Iterator[list[SendResult]]:
    """The files in groups that need at most MAX_CONTEXTS contexts."""
    by_context: dict[tuple[str, str], list[SendResult]] = {}
    for file in files:
        by_context.setdefault((file.sop_class_uid, file.transfer_syntax_uid), []).append(file)
    groups = list(by_context.values())
    for start in range(0, len(groups), MAX_CONTEXTS):
        yield [file for group in groups[start : start + MAX_CONTEXTS] for file in group]


def _associate(files: Sequence[SendResult], peer: Peer) -> Association:
    ae = AE(ae_title=peer.calling_ae_title)
    ae.connection_timeout = _CONNECT_TIMEOUT_S
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _ANSWER_TIMEOUT_S
    return ae.associate(
        peer.host,
        peer.port,
        contexts=_contexts(files),
        ae_title=peer.called_ae_title,
        max_pdu=131072,
    )


def _contexts(files: Sequence[SendResult]) -> list[PresentationContext]:
    wanted = dict.fromkeys((file.sop_class_uid, file.transfer_syntax_uid) for file in files)
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in wanted]


def _refusal(association: Association, peer: Peer) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"the association was rejected: {answer.reason_str}"
    if association.rejected_contexts and not association.accepted_contexts:
        return "the peer takes none of the SOP Classes and Transfer Syntaxes"
    if answer is not None:
        return "the association was aborted"
    return f"no answer from {peer.host}:{peer.port}"


def _send_one(association: Association, file: SendResult, *, message_id: int) -> SendResult:
    if not any(
        context.abstract_syntax == file.sop_class_uid
        and context.transfer_syntax[0] == file.transfer_syntax_uid
        for context in association.accepted_contexts
    ):
        wanted = f"{UID(file.sop_class_uid).name} in {UID(file.transfer_syntax_uid).name}"
        return replace(file, outcome=FAILED, reason=f"the peer does not take {wanted}")
    began_s = time.perf_counter()
    try:
        answer = association.send_c_store(file.path, msg_id=message_id)
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        return replace(file, outcome=FAILED, reason=str(error))
    ms = round(1000 * (time.perf_counter() - began_s), 1)
    if "Status" not in answer:
        reason = "the association broke before the peer answered"
        return replace(file, outcome=FAILED, reason=reason, ms=ms)
    status = int(answer.Status)
    category, meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, ("Failure", ""))
    outcome = {"Success": SENT, "Warning": WARNED}.get(category, FAILED)
    comment = str(answer.get("ErrorComment", ""))
    return replace(
        file,
        outcome=outcome,
        reason="" if outcome == SENT else comment or meaning,
        dimse_status=f"{status:04X}H",
        ms=ms,
    )
