"""The Store transaction of DICOMweb (STOW-RS, PS3.18 10.5), without HTTP around it.

Each Instance goes from the wire into its staging as it arrives. One that is refused does not stop
the others; a body that breaks off does, and leaves nothing of the Instance it broke off in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shared.errors import (
    AxiomError,
    BrokenOffError,
    InstanceTooLargeError,
    NotDicomError,
    PermanentError,
)
from shared.messages import Receipt, Source
from shared.multipart import MultipartError, Part
from shared.ports import Buffer
from shared.web.media_types import DICOM, MediaType
from shared.web.request_body import RequestBody, RequestTooLargeError
from shared.web.store_response import FailedInstance, StoredInstance

if TYPE_CHECKING:
    from shared.dicom.header import Header

_READ_BYTES = 256 * 1024
# What a part may be declared as; one that is declared as nothing is what the request says.
_PART_TYPES = (DICOM, "application/octet-stream")


class StagedInstance(Protocol):
    """The part of `shared.pipeline.receive.Staging` that is needed here."""

    @property
    def header(self) -> Header | None:
        """The header, once enough was written to read it."""

    def write(self, *buffers: Buffer) -> None:
        """Append. Raises: PermanentError if this cannot become an Instance that is taken."""

    def commit(self, *, study_instance_uid: str | None = None) -> Receipt:
        """Make durable. Raises: PermanentError, which is recorded already; TransientError."""

    def refuse(self, error: AxiomError) -> None:
        """Record the error in the exception log, and discard."""


class Reception(Protocol):
    """The part of `shared.pipeline.receive.Receiver` that is needed here."""

    def begin(
        self, source: Source, *, goes_on: bool = False
    ) -> AbstractContextManager[StagedInstance]:
        """Start one Instance, discarded at exit unless committed; `goes_on` if it is not the first
        of its request. Raises: TransientError.
        """


@dataclass(slots=True)
class StoreOutcome:
    """What became of each Instance of a request, in the order they came."""

    stored: list[StoredInstance] = field(default_factory=list)
    failed: list[FailedInstance] = field(default_factory=list)

    @property
    def http_status(self) -> int:
        """200 all stored, 202 some, 409 none; 413 none because each was too large."""
        if self.stored:
            return 202 if self.failed else 200
        too_large = [isinstance(f.error, InstanceTooLargeError) for f in self.failed]
        return 413 if all(too_large) else 409

    @property
    def summary(self) -> str:
        """In one sentence what failed, "" if nothing did."""
        if not self.failed:
            return ""
        count = len(self.stored) + len(self.failed)
        first = self.failed[0].error
        return f"{len(self.failed)} of {count} not stored; the first: {first.code}: {first}"


class Store:
    """One Store request: `study_instance_uid` is "" unless the request names a Study."""

    def __init__(self, reception: Reception, source: Source, study_instance_uid: str = "") -> None:
        self._reception, self._source = reception, source
        self._study_instance_uid = study_instance_uid
        self.outcome = StoreOutcome()

    def take_parts(self, parts: Iterable[Part]) -> None:
        """Store each part of a multipart body.

        Raises: MultipartError where the body breaks, TransientError when nothing can be stored
        now; what `outcome` holds by then is stored and stays.
        """
        for part in parts:
            declared = MediaType.parse(part.headers.get("content-type", DICOM)).name
            if declared not in _PART_TYPES:
                self._refuse(NotDicomError("a part is declared as another media type"))
            else:
                self._take(part.chunks())

    def take_body(self, body: RequestBody) -> None:
        """Store the one Instance that is the whole body. Raises: as `take_parts`."""

        def chunks() -> Iterator[bytes]:
            while chunk := body.read(_READ_BYTES):
                yield chunk

        self._take(chunks())

    def refuse_unread(self, error: PermanentError) -> None:
        """Refuse the Instance that the request announces, and read none of it."""
        self._refuse(error)

    def _refuse(self, error: PermanentError) -> None:
        with self._begun() as staging:
            staging.refuse(error)
        self.outcome.failed.append(FailedInstance(error))

    def _take(self, chunks: Iterator[Buffer]) -> None:
        first = next(chunks, None)
        if first is None:
            # Nothing was sent in this place, so there is nothing that the exception log could show.
            self.outcome.failed.append(FailedInstance(NotDicomError("it is empty")))
            return
        with self._begun() as staging:
            try:
                staging.write(first)
                for chunk in chunks:
                    staging.write(chunk)
            except PermanentError as error:
                staging.refuse(error)
                self._failed(error, staging.header)
                return
            except (MultipartError, RequestTooLargeError) as error:
                # The request as a whole is answered by whoever reads it.
                staging.refuse(BrokenOffError(_how(error)))
                raise
            try:
                receipt = staging.commit(study_instance_uid=self._study_instance_uid or None)
            except PermanentError as error:
                self._failed(error, staging.header)
            else:
                self.outcome.stored.append(_stored(receipt))

    def _begun(self) -> AbstractContextManager[StagedInstance]:
        # A request with more Instances than the rate allows would else never get to its end.
        goes_on = bool(self.outcome.stored or self.outcome.failed)
        return self._reception.begin(self._source, goes_on=goes_on)

    def _failed(self, error: PermanentError, header: Header | None) -> None:
        uids = ["", ""]
        if header is not None:
            uids = [header.text(name) or "" for name in ("SOPClassUID", "SOPInstanceUID")]
        # What is no UID may be anything that a sender put in its place, a name for example.
        self.outcome.failed.append(FailedInstance(error, *(u if is_uid(u) else "" for u in uids)))


def _how(error: MultipartError | RequestTooLargeError) -> str:
    if isinstance(error, RequestTooLargeError):
        return f"the request is longer than the limit of {error.args[0]} bytes"
    return str(error)


def is_uid(text: str) -> bool:
    """Whether the text has the characters and the length of a UID (PS3.5 9.1)."""
    return re.fullmatch(r"[0-9.]{1,64}", text) is not None


def _stored(receipt: Receipt) -> StoredInstance:
    return StoredInstance(
        sop_class_uid=receipt.sop_class_uid,
        sop_instance_uid=receipt.sop_instance_uid,
    )
