"""Rulesets in shadow mode: evaluated beside those that are live, and never heard by any Instance.

Each process counts for itself and writes its counts at most once a second, to a document of its
own: no two write to one, and none is written often. What was counted in the last second before a
process is killed is lost, and nothing else.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from shared.errors import AxiomError, TransientError
from shared.messages import Receipt
from shared.pipeline import dry_run
from shared.pipeline.rulebook import Shadow
from shared.pipeline.soon import WrittenSoon
from shared.ports import Clock, DocumentStore, Filter
from shared.times import timestamp

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

log = logging.getLogger(__name__)

COLLECTION: Final = "shadow-reports"
_MAX_SAMPLES: Final = 50
_MAX_RULES: Final = 1_000  # whose matches are counted
_MAX_DOCUMENTS: Final = 500


def observe(receipt: Receipt, instance: Mapping[str, Any], ports: Ports) -> None:
    """Evaluate the shadows about an Instance that was just decided about. Raises nothing: whatever
    goes wrong here is none of the Instance's business.
    """
    try:
        shadows = ports.rules.shadows()
        if not shadows:
            return
        trial = dry_run.trial_of(instance, ports)
        if trial.header is None or trial.facts is None:
            return
        live = dry_run.decision_of(ports.rules.program()[1], trial.header, trial.facts)
        for shadow in shadows:
            candidate = dry_run.decision_of(shadow.program, trial.header, trial.facts)
            ports.shadows.count(shadow, receipt, live, candidate)
    except TransientError:
        return  # the store is away or was overtaken, which others tell of; there may be no shadow
    except Exception as error:
        log.warning(
            "a shadow ruleset could not be evaluated",
            extra={"trace_id": receipt.trace_id, "type": type(error).__name__},
        )


class _Count(Struct):
    """What one process has seen of one shadow."""

    name: str
    edition: str
    since: str
    until: str = ""
    instances: int = 0
    different: int = 0
    errors: int = 0
    rules: dict[str, dict[str, int]] = field(default_factory=dict)
    samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MAX_SAMPLES))
    is_dirty: bool = False


class ShadowLog:
    """What shadows would have changed; one for each process."""

    def __init__(self, documents: DocumentStore, clock: Clock, *, write_after_s: float = 1) -> None:
        self._documents, self._clock = documents, clock
        self._process = secrets.token_hex(6)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._counts: dict[str, _Count] = {}
        self._written = WrittenSoon("shadow counts", self.write, after_s=write_after_s)

    def count(
        self,
        shadow: Shadow,
        receipt: Receipt,
        live: Mapping[str, Any],
        candidate: Mapping[str, Any],
    ) -> None:
        """Count one Instance; soon after, it is in the report of every process."""
        now = timestamp(self._clock.now())
        told = dry_run.differences(live, candidate)
        with self._lock:
            known = self._counts.get(shadow.name)
            if known is None or known.edition != shadow.edition:
                known = self._counts[shadow.name] = _Count(shadow.name, shadow.edition, now)
            known.until, known.is_dirty = now, True
            known.instances += 1
            known.errors += "error" in candidate
            for side, decision in (("live", live), ("candidate", candidate)):
                for rule in decision.get("matched_rules", ()):
                    if rule in known.rules or len(known.rules) < _MAX_RULES:
                        known.rules.setdefault(rule, {"live": 0, "candidate": 0})[side] += 1
            if told:
                known.different += 1
                known.samples.append(
                    {
                        "receipt_id": receipt.receipt_id,
                        "sop_instance_uid": receipt.sop_instance_uid,
                        "at": now,
                        "differences": told,
                    }
                )
        self._written.has_changed()

    def write(self) -> None:
        """Write what was counted since. Raises: StorageUnavailableError, and it stays counted."""
        with self._writing:
            with self._lock:
                dirty = {
                    name: self._as_document(one)
                    for name, one in self._counts.items()
                    if one.is_dirty
                }
                for name in dirty:
                    self._counts[name].is_dirty = False
            for name, data in dirty.items():
                try:
                    key = f"{data['edition']}-{self._process}"
                    self._documents.put(COLLECTION, key, data)
                except AxiomError:
                    with self._lock:
                        self._counts[name].is_dirty = True
                    raise

    def report(self, shadow: Shadow) -> dict[str, Any]:
        """What all processes have counted of the shadow as it is now, with the newest samples."""
        page = self._documents.query(
            COLLECTION, [Filter("edition", "==", shadow.edition)], limit=_MAX_DOCUMENTS
        )
        found = [document.data for document in page.documents]
        rules: dict[str, dict[str, int]] = {}
        for data in found:
            for rule, counts in data["rules"].items():
                total = rules.setdefault(rule, {"live": 0, "candidate": 0})
                for side, number in counts.items():
                    total[side] += number
        samples = [sample for data in found for sample in data["samples"]]
        return {
            "ruleset": shadow.name,
            "since": min((data["since"] for data in found), default=None),
            "until": max((data["until"] for data in found), default=None),
            "instances": _total(found, "instances"),
            "different": _total(found, "different"),
            "errors": _total(found, "errors"),
            "rules": rules,
            "samples": sorted(samples, key=lambda one: str(one["at"]), reverse=True)[:_MAX_SAMPLES],
        }

    def _as_document(self, one: _Count) -> dict[str, Any]:
        return {
            "ruleset": one.name,
            "edition": one.edition,
            "since": one.since,
            "until": one.until,
            "instances": one.instances,
            "different": one.different,
            "errors": one.errors,
            "rules": {rule: dict(counts) for rule, counts in one.rules.items()},
            "samples": list(one.samples),
        }


def _total(found: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(data[name]) for data in found)
