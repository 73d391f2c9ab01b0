"""`validate_instance`: let the Instance pass with warnings, or say why not."""

from __future__ import annotations

from shared.dicom.header import Header, read_header
from shared.dicom.validation import raise_if_rejected, validate
from shared.messages import InstanceAccepted, InstanceReceived, Receipt, Topic, encode
from shared.pipeline.ports import Ports
from shared.ports import ObjectReader, Outgoing


def run(message: InstanceReceived, ports: Ports) -> None:
    """Check the received file without decoding it; publish `instance-accepted`.

    Raises: InvalidInstanceError and its kin if what is found rejects by configuration.
    """
    receipt = message.receipt
    with ports.objects.open(receipt.file.object_name) as reader:
        findings = validate(header_of(receipt, reader), reader)
    warnings = raise_if_rejected(findings, ports.configuration.get().settings.validation)
    accepted = InstanceAccepted(
        receipt, tuple(f"{finding.code}: {finding.message}" for finding in warnings)
    )
    ports.bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, encode(accepted))])


def header_of(receipt: Receipt, reader: ObjectReader) -> Header:
    """The received header: from the message, or read again if it is too large for one."""
    if receipt.header is None:
        return read_header(reader)
    file = receipt.file
    return Header.parse(receipt.header, body_size=max(0, file.size - file.body_offset))
