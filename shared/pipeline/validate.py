"""`validate_instance`: let the Instance pass with warnings, or say why not."""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from shared import metrics
from shared.dicom.header import Header, read_header
from shared.dicom.sameness import data_set_mark
from shared.dicom.validation import raise_if_rejected, validate
from shared.dicom.validation_body import Seen
from shared.errors import ObjectMissingError, PermanentError
from shared.messages import InstanceAccepted, InstanceReceived, Receipt, Topic, encode
from shared.pipeline import instance_records
from shared.pipeline.ports import Ports
from shared.pipeline.recent_studies import RecentStudies
from shared.ports import ObjectReader, ObjectStore, Outgoing

_STUDIES = RecentStudies()


def run(message: InstanceReceived, ports: Ports) -> None:
    """Check the received file without decoding it; publish `instance-accepted`.

    Raises: InvalidInstanceError and its kin if what is found rejects by configuration.
    """
    receipt = message.receipt
    try:
        with ports.objects.open(receipt.file.object_name) as reader:
            header, seen = header_of(receipt, reader), Seen()
            findings = validate(header, reader, seen)
            receipt = _marked(receipt, header, reader, seen)
    except ObjectMissingError:
        if ports.documents.get(instance_records.COLLECTION, receipt.receipt_id) is None:
            raise
        # The message came again after all was done, and the file was deleted.
        return
    try:
        warnings = raise_if_rejected(findings, ports.configuration.get().settings.validation)
    except PermanentError:
        _count(receipt, "rejected", ports)
        raise
    _count(receipt, "warned" if warnings else "accepted", ports)
    accepted = InstanceAccepted(
        receipt, tuple(f"{finding.code}: {finding.message}" for finding in warnings)
    )
    ports.bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, encode(accepted))])


def _marked(receipt: Receipt, header: Header, reader: ObjectReader, seen: Seen) -> Receipt:
    file = receipt.file
    mark = data_set_mark(header, reader, file_crc32c=file.crc32c, padding_start=seen.padding_start)
    checked = replace(file, data_set_mark=mark, beside_pixels=tuple(seen.beside_pixels))
    return replace(receipt, file=checked)


def _count(receipt: Receipt, outcome: str, ports: Ports) -> None:
    origin = receipt.source.type, receipt.source.name
    metrics.PROCESS.count(metrics.VALIDATED, *origin, outcome)
    study = receipt.study_instance_uid
    if study and _STUDIES.is_new(receipt.source.name, study, ports.clock.monotonic_s()):
        metrics.PROCESS.count(metrics.STUDIES, *origin)


def header_of(receipt: Receipt, reader: ObjectReader) -> Header:
    """The received header: from the message, or read again if it is too large for one."""
    if receipt.header is None:
        return read_header(reader)
    return _received(receipt, receipt.header)


def header_in(receipt: Receipt, objects: ObjectStore) -> Header:
    """The same for whoever needs nothing else of the file, which is not asked for where the message
    has the header. Raises: ObjectMissingError, StorageUnavailableError.
    """
    if receipt.header is not None:
        return _received(receipt, receipt.header)
    with objects.open(receipt.file.object_name) as reader:
        return read_header(reader)


def _received(receipt: Receipt, header: bytes) -> Header:
    return _parsed(header, max(0, receipt.file.size - receipt.file.body_offset))


# The stages of one process ask for the same Header one after the other.
@lru_cache(maxsize=16)
def _parsed(header: bytes, body_size: int) -> Header:
    return Header.parse(header, body_size=body_size)
