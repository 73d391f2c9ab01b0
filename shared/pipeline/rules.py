"""`apply_rules`: decide what is changed and where the Instance goes, once, and record it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from shared import crash_points
from shared.config.service import ConfigurationService
from shared.dicom.changes import Change
from shared.dicom.header import Header
from shared.dicom.original_attributes import original_attributes_change
from shared.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    PermanentError,
    RuleFailedError,
)
from shared.messages import DeliveryRequested, InstanceAccepted, Receipt, Stage, Topic, encode
from shared.pipeline import instance_records
from shared.pipeline.exceptions import exception_from
from shared.pipeline.instance_records import (
    COLLECTION,
    DISCARDED,
    HELD,
    RELEASED,
    ROUTED,
    decision_id_of,
    new_decision_id,
    receipt_of,
)
from shared.pipeline.ports import Ports
from shared.pipeline.times import timestamp
from shared.pipeline.validate import header_of
from shared.ports import Document, Outgoing
from shared.rules import Decision, Facts, Program, Verdict, compile_rulesets, parse_ruleset
from shared.rules.crosswalk import CrosswalkLookup

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """One Delivery as decided; kept in the Instance's document, so that a second run repeats it."""

    destination: str
    changes: tuple[Change, ...]


class RuleBook:
    """The rulesets of the current configuration, compiled once for each version."""

    def __init__(
        self, configuration: ConfigurationService, key: bytes, crosswalk: CrosswalkLookup
    ) -> None:
        self._configuration, self._key = configuration, key
        self._crosswalk = crosswalk
        self._lock = threading.Lock()
        self._compiled: tuple[int, Program] | None = None

    def program(self) -> tuple[int, Program]:
        """The configuration's version and what its rulesets compile to."""
        version, configuration = self._configuration.current()
        with self._lock:
            if self._compiled is None or self._compiled[0] != version:
                maps = {one.name: one.outline for one in configuration.crosswalk_maps}
                rulesets = [
                    parse_ruleset(document, crosswalks=maps) for document in configuration.rulesets
                ]
                program = compile_rulesets(rulesets, key=self._key, crosswalk=self._crosswalk)
                self._compiled = (version, program)
            return self._compiled


def run(message: InstanceAccepted, ports: Ports) -> None:
    """Evaluate the rules and publish one `delivery-requested` for each destination.

    The decision is recorded before it is published: the same message again repeats the recorded
    decision, whatever the rules say by then. An Instance that no rule sends anywhere takes the
    default route, or is held where there is none.

    Raises: PermanentError if a rule rejects the Instance.
    """
    receipt = message.receipt
    known = ports.documents.get(COLLECTION, receipt.receipt_id)
    while known is None or message.decision_id > decision_id_of(known.data):
        known = _decide(message, known, ports)
        crash_points.reached(crash_points.AFTER_DECISION)
    plans = msgspec.convert(known.data["deliveries"], list[Plan])
    matched = tuple(known.data["matched_rules"])
    decision_id = decision_id_of(known.data)
    ports.bus.publish(
        Outgoing(
            Topic.DELIVERY_REQUESTED,
            encode(
                DeliveryRequested(receipt, plan.destination, plan.changes, matched, decision_id)
            ),
            lane=plan.destination,
            high_priority=known.data["high_priority"],
        )
        for plan in plans
    )


def release(receipt_id: str, ports: Ports) -> None:
    """Have the current rules decide anew about an Instance that waits, or was discarded.

    Raises: DocumentMissingError; ValueError if the Instance was routed.
    """
    known = ports.documents.get(COLLECTION, receipt_id)
    if known is None:
        raise DocumentMissingError(COLLECTION, receipt_id)
    if known.data["state"] == ROUTED:
        raise ValueError("the Instance is routed already")
    decide_anew(receipt_of(known.data), tuple(known.data["warnings"]), ports)


def decide_anew(receipt: Receipt, warnings: tuple[str, ...], ports: Ports) -> None:
    """Have the current rules decide about an Instance, whatever was decided before.

    The message says it all: if we end right after it is published, nothing is missing.
    """
    accepted = InstanceAccepted(receipt, warnings, new_decision_id(ports.clock))
    ports.bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, encode(accepted))])

    def marked(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        was_decided = decision_id_of(data) >= accepted.decision_id
        return None if was_decided else {**data, "state": RELEASED}

    with suppress(DocumentMissingError):
        instance_records.change(ports.documents, receipt.receipt_id, marked)


class RejectedByRuleError(PermanentError):
    """A rule says that the Instance is not wanted. args: the rule and its reason."""

    code = "rejected-by-rule"
    hint = "If the Instance is wanted, change the rule and retry with the current rules."


def _decide(message: InstanceAccepted, known: Document | None, ports: Ports) -> Document:
    receipt = message.receipt
    version, program = ports.rules.program()
    settings = ports.configuration.get().settings
    with ports.objects.open(receipt.file.object_name) as reader:
        header = header_of(receipt, reader)
    decision = program.evaluate(header, facts_of(receipt))
    _record_failures(decision, receipt, ports)
    if decision.verdict is Verdict.REJECT:
        # Not recorded as decided: a retry from the exception log asks the rules of its own day.
        raise RejectedByRuleError(decision.reason)
    plans = _plans(decision, settings.default_route)
    if settings.original_attributes:
        plans = [
            _with_original_attributes(plan, header, receipt, settings.modifying_system, ports)
            for plan in plans
        ]
    state, reason = _state(decision, plans)
    data: dict[str, Any] = {
        "receipt_id": receipt.receipt_id,
        "trace_id": receipt.trace_id,
        "received_at": timestamp(receipt.received_at),
        "decided_at": timestamp(ports.clock.now()),
        "configuration_version": version,
        "source": msgspec.to_builtins(receipt.source),
        "file": msgspec.to_builtins(receipt.file),
        "sop_class_uid": receipt.sop_class_uid,
        "sop_instance_uid": receipt.sop_instance_uid,
        "study_instance_uid": receipt.study_instance_uid,
        "series_instance_uid": receipt.series_instance_uid,
        "transfer_syntax_uid": receipt.transfer_syntax_uid,
        "state": state,
        "reason": reason,
        "high_priority": decision.high_priority,
        "matched_rules": list(decision.matched_rules),
        "warnings": list(message.warnings),
        "deliveries": msgspec.to_builtins(plans),
        # What a person who sends it on by hand would have it look like.
        "changes": [] if plans else msgspec.to_builtins(decision.changes),
        "decision_id": message.decision_id,
        "history": [] if known is None else known.data.get("history", []),
    }
    try:
        if known is not None:
            return ports.documents.replace(COLLECTION, receipt.receipt_id, data, known.version)
        return ports.documents.create(COLLECTION, receipt.receipt_id, data)
    except (DocumentExistsError, DocumentChangedError):
        # The message came twice at once, or a person did something: look again.
        found = ports.documents.get(COLLECTION, receipt.receipt_id)
        if found is None:
            raise
        return found


def facts_of(receipt: Receipt) -> Facts:
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
        received_at=receipt.received_at,
    )


def _plans(decision: Decision, default_route: Sequence[str]) -> list[Plan]:
    if decision.verdict is not Verdict.ROUTE:
        return []
    if decision.deliveries:
        return [Plan(planned.destination, planned.changes) for planned in decision.deliveries]
    return [Plan(destination, decision.changes) for destination in default_route]


def _state(decision: Decision, plans: Sequence[Plan]) -> tuple[str, str]:
    if decision.verdict is Verdict.HOLD:
        return HELD, decision.reason
    if decision.verdict is Verdict.DISCARD:
        return DISCARDED, decision.reason
    if not plans:
        return HELD, "no rule sends it anywhere and there is no default route"
    return ROUTED, decision.reason


def _with_original_attributes(
    plan: Plan, header: Header, receipt: Receipt, modifying_system: str, ports: Ports
) -> Plan:
    change = original_attributes_change(
        header,
        plan.changes,
        modifying_system=modifying_system,
        source=receipt.source.calling_ae_title or receipt.source.name,
        reason="COERCE",
        at=ports.clock.now(),
    )
    return plan if change is None else Plan(plan.destination, (*plan.changes, change))


def _record_failures(decision: Decision, receipt: Receipt, ports: Ports) -> None:
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
