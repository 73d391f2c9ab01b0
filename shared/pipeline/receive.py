"""Reception: bytes in, a durable received file and a published message out.

The gateway and STOW-RS write an Instance here as it comes off the wire. Nothing is held whole: only
the header is kept, while it streams, so that it needs no second read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from msgspec.structs import replace

from shared import crash_points, metrics, tracing
from shared.config.entities import Settings
from shared.config.service import ConfigurationService
from shared.dicom.header import (
    FIRST_READ_BYTES,
    MAX_HEADER_BYTES,
    Header,
    HeaderIncompleteError,
    read_meta,
)
from shared.dicom.validation import Severity, check_received
from shared.errors import (
    AxiomError,
    InstanceTooLargeError,
    MalformedHeaderError,
    NotDicomError,
    PermanentError,
    RefusedByRuleError,
    SopInstanceMismatchError,
    StorageUnavailableError,
    TransientError,
)
from shared.messages import (
    MAX_INLINE_HEADER_BYTES,
    InstanceReceived,
    Receipt,
    ReceivedFile,
    Source,
    Stage,
    Topic,
    encode,
)
from shared.pipeline.admission import Admission
from shared.pipeline.exceptions import ExceptionLog, exception_from
from shared.ports import Buffer, Clock, MessageBus, ObjectStore, ObjectWriter, Outgoing
from shared.rules.decision import Facts, Refusal

log = logging.getLogger(__name__)

# The longest start of a Data Element: tag, VR, reserved bytes, length (PS3.5 7.1.2).
_BODY_START_BYTES = 12
_NO_SEPARATORS = str.maketrans("", "", "-:.")
# A person or a later setting can mend it, and many modalities send a refused Instance never again:
# it is taken, and `validate_instance` decides.
_LEFT_TO_VALIDATION = {"patient-id-missing": Severity.IGNORE}


class ReceptionRules(Protocol):
    """What is asked before the sender gets an answer."""

    def refusal(self, header: Header, facts: Facts) -> Refusal | None:
        """What a rule says against the Instance. Raises: TransientError."""


class Receiver:
    """Takes Instances in; one for each process."""

    def __init__(
        self,
        objects: ObjectStore,
        bus: MessageBus,
        clock: Clock,
        configuration: ConfigurationService,
        exceptions: ExceptionLog,
        rules: ReceptionRules,
        admission: Admission,
    ) -> None:
        self._objects, self._bus, self._clock = objects, bus, clock
        self._configuration, self._exceptions = configuration, exceptions
        self._rules = rules
        self._admission = admission

    def begin(
        self,
        source: Source,
        *,
        goes_on: bool = False,
        move_originator: str = "",
        waits: bool = False,
    ) -> Staging:
        """Start one Instance; `goes_on` if it is of a request that was let in already. What an AE
        sends because `move_originator` had it do so comes from the source that we asked there.
        Who `waits` to be let in is not counted as refused.

        Raises: OverloadedError above a watermark; RateLimitedError; StorageUnavailableError.
        """
        settings = self._configuration.get().settings
        try:
            self._admission.check(source, settings, goes_on=goes_on)
        except TransientError as error:
            if not waits:
                _count_refused(source, error)
            raise
        if move_originator:
            source = self._asked(source, move_originator)
        # Sorts by time, and is a folder of an hour on a file system. 20261121T093000123456
        stamp = self._clock.now().isoformat(timespec="microseconds")[:26].translate(_NO_SEPARATORS)
        trace_id = tracing.new_trace_id()
        receipt_id = f"{stamp}-{trace_id[-8:]}"
        name = f"received/{stamp[:8]}/{stamp[9:11]}/{receipt_id}.dcm"
        return Staging(self, source, receipt_id, trace_id, self._objects.create(name), settings)

    def closed(self) -> list[str]:
        """In words why nobody is let in, empty if everybody is. Raises: StorageUnavailableError."""
        return self._admission.closed(self._configuration.get().settings)

    def _asked(self, source: Source, move_originator: str) -> Source:
        for entity in self._configuration.get().sources:
            if (
                entity.type == "dimse_qr"
                and entity.enabled
                and entity.ae_title == source.calling_ae_title.strip()
                # Some name themselves there.
                and move_originator in (entity.calling_ae_title, entity.ae_title)
            ):
                return replace(source, type=entity.type, name=entity.name)
        return source

    def publish(self, receipts: Sequence[Receipt]) -> None:
        """Publish what was kept.

        Raises: StorageUnavailableError. The sender of one alone is told to send it again; of
        several some may be published, and each is to be published alone then.
        """
        try:
            self._bus.publish(
                Outgoing(Topic.INSTANCE_RECEIVED, encode(InstanceReceived(receipt)))
                for receipt in receipts
            )
        except StorageUnavailableError:
            if len(receipts) == 1:
                # It comes again, so this copy would only lie about.
                self._objects.delete(receipts[0].file.object_name)
            raise
        crash_points.reached(crash_points.AFTER_PUBLISH)
        for receipt in receipts:
            origin = receipt.source.type, receipt.source.name
            metrics.PROCESS.count(metrics.RECEIVED, *origin)
            metrics.PROCESS.count(metrics.RECEIVED_BYTES, *origin, amount=receipt.file.size)


class Staging:
    """One Instance on its way in. Discarded unless committed; used by one thread."""

    def __init__(
        self,
        receiver: Receiver,
        source: Source,
        receipt_id: str,
        trace_id: str,
        writer: ObjectWriter,
        settings: Settings,
    ) -> None:
        self.receipt_id = receipt_id
        self.source = source
        self._receiver, self._writer = receiver, writer
        self._max_bytes = settings.max_instance_bytes
        self._severities = {**settings.validation, **_LEFT_TO_VALIDATION}
        self._head = bytearray()
        self._head_wanted = FIRST_READ_BYTES
        self._header: Header | None = None
        self._body_start = b""
        self._open = True
        self._trace_id, self._began_ns = trace_id, time.time_ns()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    @property
    def header(self) -> Header | None:
        """The header, once enough was written to read it: it names what is being refused."""
        return self._header

    def write(self, *buffers: Buffer) -> None:
        """Append bytes of the Part 10 file, from the preamble on. Buffers may be reused after.

        Raises: InstanceTooLargeError; NotDicomError and MalformedHeaderError as soon as the header
        shows it; StorageUnavailableError.
        """
        self._writer.write(*buffers)
        if self._writer.size > self._max_bytes:
            raise InstanceTooLargeError(self._max_bytes)
        if self._header is None:
            self._look_for_header(buffers)

    def commit(
        self,
        *,
        sop_class_uid: str | None = None,
        sop_instance_uid: str | None = None,
        study_instance_uid: str | None = None,
    ) -> Receipt:
        """Check, make durable, publish: when this returns the sender may be told Success.

        The UIDs are what the request names, if it names any. Raises: PermanentError if the Instance
        is refused (recorded in the exception log); TransientError if it should be sent again.
        """
        with tracing.reception(self._trace_id, self._began_ns) as scope:
            try:
                receipt = self._kept(sop_class_uid, sop_instance_uid, study_instance_uid)
                self._receiver.publish([receipt])
            except TransientError as error:
                _count_refused(self.source, error)
                raise
            scope.describe(receipt)
        return receipt

    def keep(self) -> Receipt:
        """As `commit`, but nothing is published yet: `Receiver.publish` does that, for several at
        once. Until then the sender is told nothing.
        """
        with tracing.reception(self._trace_id, self._began_ns) as scope:
            receipt = self._kept(None, None, None)
            scope.describe(receipt)
        return receipt

    def _kept(
        self,
        sop_class_uid: str | None,
        sop_instance_uid: str | None,
        study_instance_uid: str | None,
    ) -> Receipt:
        try:
            try:
                if self._header is None:
                    self._read_header(whole=True)
                header = self._header
                if header is None:
                    raise NotDicomError("it ends before its data set")
                for name, wanted in (
                    ("SOPClassUID", sop_class_uid),
                    ("SOPInstanceUID", sop_instance_uid),
                    ("StudyInstanceUID", study_instance_uid),
                ):
                    found = header.text(name)
                    if wanted is not None and found and found != wanted:
                        raise SopInstanceMismatchError(name, wanted, _shown(found))
                check_received(
                    header, self._writer.size, self._severities, body_start=self._body_start
                )
                self._ask_rules(header)
            except PermanentError as error:
                self._refused(error)
                raise
            stored = self._writer.commit()
            self._open = False
        finally:
            self.discard()
        crash_points.reached(crash_points.AFTER_COMMIT)
        return Receipt(
            receipt_id=self.receipt_id,
            trace_id=self._trace_id,
            received_at=self._receiver._clock.now(),
            source=self.source,
            file=ReceivedFile(stored.name, stored.size, stored.crc32c, header.body_offset),
            sop_class_uid=header.text("SOPClassUID") or "",
            sop_instance_uid=header.text("SOPInstanceUID") or "",
            study_instance_uid=header.text("StudyInstanceUID") or "",
            series_instance_uid=header.text("SeriesInstanceUID") or "",
            transfer_syntax_uid=header.transfer_syntax_uid,
            header=header.data if len(header.data) <= MAX_INLINE_HEADER_BYTES else None,
        )

    def refuse(self, error: AxiomError) -> None:
        """Record that the sender is refused, and discard. For faults that the caller found."""
        with tracing.reception(self._trace_id, self._began_ns) as scope:
            scope.failed(error)
            self._refused(error)

    def _refused(self, error: AxiomError) -> None:
        self.discard()
        header = self._header or read_meta(bytes(self._head[:FIRST_READ_BYTES]))
        raised = exception_from(
            error,
            stage=Stage.RECEIVE,
            at=self._receiver._clock.now(),
            source=self.source,
            sop_class_uid=_named(header, "SOPClassUID", "MediaStorageSOPClassUID"),
            sop_instance_uid=_named(header, "SOPInstanceUID", "MediaStorageSOPInstanceUID"),
            study_instance_uid=_named(header, "StudyInstanceUID"),
            transfer_syntax_uid=_named(header, "TransferSyntaxUID"),
        )
        self._receiver._exceptions.publish(raised)
        _count_refused(self.source, error)
        log.warning("refused", extra={"code": error.code, "exception_id": raised.exception_id})

    def discard(self) -> None:
        """Forget what was written; after `commit` nothing."""
        if self._open:
            self._open = False
            self._writer.discard()

    def _ask_rules(self, header: Header) -> None:
        """Raises: RefusedByRuleError; TransientError."""
        source = self.source
        facts = Facts(
            source_type=source.type,
            source_name=source.name,
            calling_ae_title=source.calling_ae_title,
            called_ae_title=source.called_ae_title,
            peer_address=source.peer_address,
            transfer_syntax_uid=header.transfer_syntax_uid,
            sop_class_uid=header.text("SOPClassUID") or "",
            size=self._writer.size,
            received_at=self._receiver._clock.now(),
        )
        refusal = self._receiver._rules.refusal(header, facts)
        if refusal is not None:
            raise RefusedByRuleError(refusal.rule, refusal.reason, refusal.status)

    def _look_for_header(self, buffers: Sequence[Buffer]) -> None:
        """Keep what the header may still need of the buffers, and no more."""
        head = self._head
        for buffer in buffers:
            view = memoryview(buffer)
            position = 0
            while self._header is None and position < len(view):
                part = view[position : position + self._head_wanted - len(head)]
                head += part
                position += len(part)
                if len(head) >= self._head_wanted:
                    self._read_header(whole=False)

    def _read_header(self, *, whole: bool) -> None:
        file_size = self._writer.size if whole else None
        try:
            header = Header.parse(bytes(self._head), file_size=file_size)
            if not header.is_deflated:
                start = header.body_offset
                self._body_start = bytes(self._head[start : start + _BODY_START_BYTES])
            self._header = header
            self._head.clear()
        except HeaderIncompleteError:
            if whole or len(self._head) >= MAX_HEADER_BYTES:
                raise MalformedHeaderError(
                    f"the header is longer than {MAX_HEADER_BYTES} bytes", len(self._head)
                ) from None
            self._head_wanted = 2 * len(self._head)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.discard()


def _count_refused(source: Source, error: AxiomError) -> None:
    metrics.PROCESS.count(metrics.REFUSED, source.type, source.name, error.code)


def _named(header: Header | None, *keywords: str) -> str:
    """The first of the UIDs that can be read and is one."""
    for keyword in keywords:
        try:
            uid = header.text(keyword) if header else None
        except PermanentError:
            continue
        if uid and is_uid(uid):
            return uid
    return ""


def _shown(uid: str) -> str:
    # A sender that mixes up its elements may have put a name there.
    return uid if is_uid(uid) else "no UID"


def is_uid(text: str) -> bool:
    """Whether the text has the characters and the length of a UID (PS3.5 9.1)."""
    return len(text) <= 64 and text.isascii() and text.replace(".", "").isdecimal()
