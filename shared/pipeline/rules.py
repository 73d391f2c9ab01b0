"""`apply_rules`: decide what is changed and where the Instance goes, once, and record it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec.structs import replace

from shared import crash_points, metrics, tracing
from shared.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    PermanentError,
)
from shared.messages import InstanceAccepted, Receipt, Topic, encode
from shared.pipeline import collect, instance_records, returned, shadow, standardize
from shared.pipeline.instance_records import (
    COLLECTING,
    COLLECTION,
    DISCARDED,
    HELD,
    RELEASED,
    ROUTED,
    decision_of,
    next_decision,
    receipt_of,
)
from shared.pipeline.plans import (
    Plan,
    delivery_messages,
    facts_of,
    plans_of,
    record_failures,
    told_in_the_instance,
)
from shared.pipeline.ports import Ports
from shared.pipeline.validate import header_in
from shared.ports import Document, Outgoing
from shared.rules import Ask, Decision, Verdict
from shared.rules.program import LOOP_REASON
from shared.times import timestamp

log = logging.getLogger(__name__)


def run(message: InstanceAccepted, ports: Ports) -> None:
    """Evaluate the rules and publish one `delivery-requested` for each destination.

    The decision is recorded before it is published: the same message again repeats the recorded
    decision, whatever the rules say by then. An Instance that no rule sends anywhere takes the
    default route, or is held where there is none; one that a study rule may want waits for that.

    Raises: PermanentError if a rule rejects the Instance.
    """
    receipt = message.receipt
    known = ports.documents.get(COLLECTION, receipt.receipt_id)
    decides = False
    while known is None or message.decision > decision_of(known.data):
        decides = True
        decided = _decide(message, known, ports)
        if isinstance(decided, Ask):
            ports.bus.publish([standardize.request(message, decided, ports)])
            return
        known = decided
        crash_points.reached(crash_points.AFTER_DECISION)
    collect.register(known.data, receipt, ports)
    ports.bus.publish(delivery_messages(receipt, known.data))
    if known.data.get("standardized") and standardize.is_outdated(known.data, ports):
        released = message.released
        decide_anew(receipt, message.warnings, ports, released=released, corrects=True)
    if decides:
        shadow.observe(receipt, known.data, ports)


def release(receipt_id: str, ports: Ports) -> None:
    """Have the current rules decide anew about an Instance that waits, or was discarded, `hold`
    actions aside.

    Raises: DocumentMissingError; ValueError if the Instance was routed.
    """
    known = ports.documents.get(COLLECTION, receipt_id)
    if known is None:
        raise DocumentMissingError(COLLECTION, receipt_id)
    if known.data["state"] == ROUTED:
        raise ValueError("the Instance is routed already")
    decide_anew(receipt_of(known.data), tuple(known.data["warnings"]), ports, released=True)


def decide_anew(
    receipt: Receipt,
    warnings: tuple[str, ...],
    ports: Ports,
    *,
    released: bool = False,
    corrects: bool = False,
) -> None:
    """Have the current rules decide about an Instance, whatever was decided before; if it is
    `released`, their `hold` actions count no more. If it `corrects` what was delivered of the
    Instance, that gives way, whatever a destination's policy for conflicts is.

    The message says it all: if we end right after it is published, nothing is missing.
    """
    known = ports.documents.get(COLLECTION, receipt.receipt_id)
    number = next_decision(known.data if known else None)
    accepted = InstanceAccepted(receipt, warnings, number, released, corrects=corrects)
    ports.bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, encode(accepted))])

    def marked(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if decision_of(data) >= number:
            return None
        return {**data, "state": RELEASED, "asked": number}

    with suppress(DocumentMissingError):
        instance_records.change(ports.documents, receipt.receipt_id, marked)


class RejectedByRuleError(PermanentError):
    """A rule says that the Instance is not wanted. args: the rule and its reason."""

    code = "rejected-by-rule"
    hint = "If the Instance is wanted, change the rule, then retry: the current rules decide."
    template = "rule {}: {}"


def _decide(message: InstanceAccepted, known: Document | None, ports: Ports) -> Document | Ask:
    receipt = message.receipt
    version, program = ports.rules.program()
    settings = ports.configuration.get().settings
    header = header_in(receipt, ports.objects)
    has_returned = returned.has_returned(receipt, header, ports)
    facts = replace(
        facts_of(receipt, returned=has_returned, released=message.released),
        standardized={answer.standardizer: answer for answer in message.standardized},
        asks=True,
    )
    with metrics.PROCESS.timed(metrics.RULES_SECONDS):
        decision = program.evaluate(header, facts)
    if decision.ask is not None:
        return decision.ask
    record_failures(decision, receipt, ports)
    for rule in decision.matched_rules:
        metrics.PROCESS.count(metrics.RULE_MATCHES, rule)
    if decision.verdict is Verdict.REJECT:
        # Not recorded as decided: a retry from the exception log asks the rules of its own day.
        rule = decision.refusal.rule if decision.refusal else ""
        raise RejectedByRuleError(rule, decision.reason)
    plans: list[Plan] = []
    if decision.verdict is Verdict.ROUTE:
        plans = plans_of(decision, () if has_returned else settings.default_route)
    plans = told_in_the_instance(plans, header, receipt, ports)
    returned.remember_renamed(receipt, plans, ports)
    by_hand = _ordered_by_hand(message, known, plans)
    state, reason = _state(decision, bool(plans or by_hand), has_returned)
    tracing.note("axiom.rules", decision.matched_rules)
    tracing.note("axiom.state", state)
    otherwise = None
    if decision.collect_for and not decision.deliveries:
        otherwise = {"state": state, "reason": reason, "deliveries": msgspec.to_builtins(plans)}
        state, reason, plans = COLLECTING, "", []
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
        "returned": has_returned,
        "released": message.released,
        "corrects": message.corrects,
        "state": state,
        "reason": reason,
        "high_priority": decision.high_priority,
        "matched_rules": list(decision.matched_rules),
        "warnings": list(message.warnings),
        "deliveries": [*msgspec.to_builtins(plans), *by_hand],
        # What a person who sends it on by hand would have it look like.
        "changes": [] if plans else msgspec.to_builtins(decision.changes),
        "decision": message.decision,
        "asked": message.decision,
        # What standardizers answered, and on which evidence.
        "answers": msgspec.to_builtins(message.standardized),
        "standardized": [one for answer in message.standardized for one in answer.details],
        # Study rules that have not decided yet, and what those that have said; without them, the
        # Instance would have gone this way.
        "collecting_for": list(decision.collect_for),
        "studies": {},
        "otherwise": otherwise,
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


def _ordered_by_hand(
    message: InstanceAccepted, known: Document | None, plans: Sequence[Plan]
) -> Sequence[Mapping[str, Any]]:
    """The plans that a person has made, and that a correction, which nobody ordered, leaves."""
    if known is None or not message.corrects:
        return ()
    others = {plan.destination for plan in plans}
    return [
        # Asked for with this decision, and no more by the order that was given under the last one.
        {**plan, "order": 0}
        for plan in known.data["deliveries"]
        if plan.get("by_hand") and plan["destination"] not in others
    ]


def _state(decision: Decision, goes_somewhere: bool, has_returned: bool) -> tuple[str, str]:
    if decision.verdict is Verdict.HOLD:
        return HELD, decision.reason
    if decision.verdict is Verdict.DISCARD:
        return DISCARDED, decision.reason
    if not goes_somewhere and has_returned and not decision.failures:
        return DISCARDED, decision.reason or LOOP_REASON
    if not goes_somewhere:
        return HELD, "no rule sends it anywhere and there is no default route"
    return ROUTED, decision.reason
