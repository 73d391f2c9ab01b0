"""Deliveries as they are planned: kept in the Instance's document, and then asked for."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from shared.dicom.changes import Change, Transcoding
from shared.dicom.header import Header
from shared.dicom.original_attributes import (
    ORIGINAL_ATTRIBUTES_SEQUENCE,
    original_attributes_change,
)
from shared.errors import RuleFailedError
from shared.messages import DeliveryRequested, Receipt, Stage, Topic, encode
from shared.pipeline.exceptions import exception_from
from shared.pipeline.instance_records import decision_of
from shared.pipeline.ports import Ports
from shared.ports import Outgoing
from shared.rules import Decision, Facts


class Plan(Struct, frozen=True):
    """One Delivery as decided; kept in the Instance's document, so that a second run repeats it."""

    destination: str
    changes: tuple[Change, ...]
    transcoding: Transcoding | None = None


# Prepares the type while one thread runs, as `shared.messages` does.
msgspec.convert((), tuple[Plan, ...])


def facts_of(receipt: Receipt, *, returned: bool = False, released: bool = False) -> Facts:
    """What conditions may ask about an Instance besides its Attributes."""
    source = receipt.source
    return Facts(
        source_type=source.type,
        source_name=source.name,
        calling_ae_title=source.calling_ae_title,
        called_ae_title=source.called_ae_title,
        peer_address=source.peer_address,
        transfer_syntax_uid=receipt.transfer_syntax_uid,
        sop_class_uid=receipt.sop_class_uid,
        size=receipt.file.size,
        beside_pixels=frozenset(each.tag for each in receipt.file.beside_pixels),
        received_at=receipt.received_at,
        returned=returned,
        released=released,
    )


def plans_of(decision: Decision, default_route: Iterable[str]) -> list[Plan]:
    """The Deliveries that were decided; without any, those along the default route."""
    if decision.deliveries:
        return [
            Plan(planned.destination, planned.changes, planned.transcoding)
            for planned in decision.deliveries
        ]
    return [Plan(name, decision.changes, decision.transcoding) for name in default_route]


def told_in_the_instance(
    plans: Iterable[Plan], header: Header, receipt: Receipt, ports: Ports
) -> list[Plan]:
    """The plans, each with one more Change that tells of the others in the Original Attributes
    Sequence (PS3.3 C.12.1), unless the configuration does without, or it would stand behind a value
    so large that the Header ends at it: Data Elements are in ascending order (PS3.5 7.1).
    """
    configuration, now = ports.configuration.get(), ports.clock.now()
    beside = receipt.file.beside_pixels
    is_behind = any(each.tag < ORIGINAL_ATTRIBUTES_SEQUENCE for each in beside)
    if is_behind:
        return list(plans)
    told = []
    for plan in plans:
        if not configuration.tells_original_attributes(plan.destination):
            told.append(plan)
            continue
        change = original_attributes_change(
            header,
            plan.changes,
            modifying_system=configuration.settings.modifying_system,
            source=receipt.source.calling_ae_title or receipt.source.name,
            reason="COERCE",
            at=now,  # of all of them: equal copies are equal bytes
        )
        told.append(plan if change is None else replace(plan, changes=(*plan.changes, change)))
    return told


def delivery_messages(
    receipt: Receipt, data: Mapping[str, Any], destinations: Container[str] | None = None
) -> list[Outgoing]:
    """What asks for the Deliveries that an Instance's document plans; only for those to
    `destinations` if they are given.
    """
    matched = tuple(data["matched_rules"])
    decision = decision_of(data)
    return [
        Outgoing(
            Topic.DELIVERY_REQUESTED,
            encode(
                DeliveryRequested(
                    receipt,
                    plan.destination,
                    plan.changes,
                    matched,
                    decision,
                    transcoding=plan.transcoding,
                    corrects=data.get("corrects", False),
                )
            ),
            lane=plan.destination,
            high_priority=data["high_priority"],
        )
        for plan in msgspec.convert(data["deliveries"], list[Plan])
        if destinations is None or plan.destination in destinations
    ]


def record_failures(decision: Decision, receipt: Receipt, ports: Ports) -> None:
    """An entry of the exception log for each rule that failed; the same again is the same entry."""
    for failure in decision.failures:
        ports.exceptions.publish(
            exception_from(
                RuleFailedError(failure.rule, failure.reason),
                stage=Stage.RULES,
                at=ports.clock.now(),
                receipt=receipt,
                key=failure.rule,
            )
        )


def delivered_uid(
    plan: Mapping[str, Any], received_uid: str, keyword: str = "SOPInstanceUID"
) -> str:
    """A UID as the destination of a plan, as the Instance's document keeps it, gets to see it."""
    uid = received_uid
    for change in plan["changes"]:
        if change["path"] == keyword:
            uid = "".join(change["new"] or ())
    return uid
