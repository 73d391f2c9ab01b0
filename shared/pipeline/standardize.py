"""`standardize_attributes`: have a standardizer look at an Instance, and the rules begin anew.

Rules that meet a `standardize` action without an answer ask for one here, and decide nothing yet.
So the rules after the action see standard terms, and one decision has all Changes in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from shared.dicom.edit import apply_changes
from shared.errors import ObjectMissingError
from shared.messages import (
    InstanceAccepted,
    StandardizationRequested,
    Topic,
    encode,
)
from shared.pipeline import instance_records
from shared.pipeline.ports import Ports
from shared.pipeline.validate import header_of
from shared.ports import Outgoing
from shared.rules import Ask


def request(message: InstanceAccepted, ask: Ask, ports: Ports) -> Outgoing:
    """What asks the standardizer. One that may take long has a lane of its own."""
    data = encode(StandardizationRequested(message, ask.standardizer, ask.changes))
    lane = ask.standardizer if ports.standardizers.waits_apart(ask.standardizer) else ""
    return Outgoing(Topic.STANDARDIZATION_REQUESTED, data, lane=lane)


def run(message: StandardizationRequested, ports: Ports) -> None:
    """Have the rules decide again, with the answer. The same message again gives the same answer.

    Raises: SeriesUnderDecisionError while a provider is asked about the Series; TransientError.
    """
    accepted = message.accepted
    receipt = accepted.receipt
    try:
        with ports.objects.open(receipt.file.object_name) as reader:
            received = header_of(receipt, reader)
            header = apply_changes(received, message.changes)
    except ObjectMissingError:
        if ports.documents.get(instance_records.COLLECTION, receipt.receipt_id) is None:
            raise
        # The message came again after all was done, and the file was deleted.
        return
    answer = ports.standardizers.answer(message.standardizer, header, receipt, received)
    answered = replace(accepted, standardized=(*accepted.standardized, answer))
    ports.bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, encode(answered))])


def is_outdated(instance: Mapping[str, Any], ports: Ports) -> bool:
    """True if somebody decided about the Series otherwise while the Instance was on its way."""
    from shared.pipeline.series_decisions import SeriesDecisions, is_settled_as

    if instance["asked"] > instance["decision"]:
        return False  # it is decided anew in any case
    series = SeriesDecisions(ports.documents, ports.clock)
    for told in instance["standardized"]:
        known = series.get(told["key"])
        if known is not None and not is_settled_as(known.data, told):
            return True
    return False
