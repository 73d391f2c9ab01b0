"""One decision for a Series: all its Instances get the same value, whoever decides first.

There is one document for each standardizer, Attribute and Series (and question, where the
Attribute is one of the image), changed by compare-and-set alone. While a provider is asked over
the network the document is a claim, which ends by itself, for its holder may have died. A person's
word replaces what was decided; `revision` rises, so that what was decided before can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from shared.config.standardizers import Standardizer
from shared.errors import (
    AxiomError,
    DocumentChangedError,
    DocumentExistsError,
    SeriesUnderDecisionError,
)
from shared.messages import Receipt
from shared.ports import Clock, Document, DocumentStore
from shared.standardize.attributes import OF_THE_IMAGE
from shared.standardize.chain import Decision, Verdict
from shared.standardize.kept import fingerprint
from shared.standardize.proposals import Question
from shared.times import timestamp

COLLECTION: Final = "standardization-series"

# A provider is being asked.
ASKING: Final = "asking"
# Decided without a person: a term is set; the value was right; nobody knows; all providers failed.
APPLIED, KEPT, UNKNOWN, DOWN = "applied", "kept", "unknown", "down"
# For people: proposed while the Instances went on, or held until somebody decides.
PROPOSED, HELD = "proposed", "held"
# People's words.
APPROVED, CORRECTED, REJECTED, REVERTED = "approved", "corrected", "rejected", "reverted"
STATES: Final = (
    *(APPLIED, KEPT, UNKNOWN, DOWN, PROPOSED, HELD),
    *(APPROVED, CORRECTED, REJECTED, REVERTED),
)
OPEN: Final = (PROPOSED, HELD)

Data = Mapping[str, Any]


class SeriesDecisions:
    """The documents."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents, self._clock = documents, clock

    def get(self, key: str) -> Document | None:
        """One of them."""
        return self._documents.get(COLLECTION, key)

    def known(self, standardizer: str, question: Question, receipt: Receipt) -> Data | None:
        """What was decided about the Series of the receipt, if anything was."""
        found = self._documents.get(COLLECTION, key_of(standardizer, question, receipt))
        return None if found is None or found.data["state"] == ASKING else found.data

    def of(
        self,
        entity: Standardizer,
        question: Question,
        receipt: Receipt,
        decide: Callable[[], Decision],
    ) -> tuple[Data, bool]:
        """The decision about the Series, and whether it was made now; `decide` makes it if there is
        none.

        Raises: SeriesUnderDecisionError while somebody else is at it; what `decide` raises.
        """
        key = key_of(entity.name, question, receipt)
        known = self._documents.get(COLLECTION, key)
        if known is not None and known.data["state"] != ASKING:
            return known.data, False
        data = self._decided(key, entity, question, receipt, decide())
        return self._settled(key, data, known, receipt)

    def of_all(
        self,
        entity: Standardizer,
        questions: Sequence[Question],
        receipt: Receipt,
        decide: Callable[[Sequence[Question]], Sequence[Decision]],
        *,
        claim_s: float,
    ) -> list[tuple[Data, bool]]:
        """The same for several questions, where to `decide` takes up to `claim_s` seconds, and is
        done once at a time, for those together that are not decided.
        """
        found: dict[int, tuple[Data, bool]] = {}
        claims: dict[int, Document] = {}
        keys = [key_of(entity.name, one, receipt) for one in questions]
        try:
            for number, (key, question) in enumerate(zip(keys, questions, strict=True)):
                known = self._documents.get(COLLECTION, key)
                if known is not None and known.data["state"] != ASKING:
                    found[number] = known.data, False
                else:
                    claims[number] = self._claimed(key, known, entity, question, receipt, claim_s)
            decisions = decide([questions[number] for number in claims]) if claims else ()
        except BaseException:
            for claim in claims.values():
                self._release(claim)
            raise
        for (number, claim), decision in zip(claims.items(), decisions, strict=True):
            data = self._decided(keys[number], entity, questions[number], receipt, decision)
            found[number] = self._settled(keys[number], data, claim, receipt)
        return [found[number] for number in range(len(questions))]

    def _settled(
        self, key: str, data: dict[str, Any], known: Document | None, receipt: Receipt
    ) -> tuple[Data, bool]:
        if known is not None:
            data["revision"] = known.data["revision"] + 1
            data["history"] = known.data.get("history", [])
        try:
            if known is None:
                return self._documents.create(COLLECTION, key, data).data, True
            return self._documents.replace(COLLECTION, key, data, known.version).data, True
        except (DocumentExistsError, DocumentChangedError):
            # Somebody else was faster, and theirs holds, so that a Series stays of one mind.
            first = self._documents.get(COLLECTION, key)
            if first is None or first.data["state"] == ASKING:
                raise SeriesUnderDecisionError(receipt.series_instance_uid) from None
            return first.data, False

    def _claimed(
        self,
        key: str,
        known: Document | None,
        entity: Standardizer,
        question: Question,
        receipt: Receipt,
        claim_s: float,
    ) -> Document:
        now = self._clock.now()
        if known is not None and timestamp(now) < known.data["asked_until"]:
            raise SeriesUnderDecisionError(receipt.series_instance_uid)
        claim = {
            **_identity(key, entity, question, receipt),
            "state": ASKING,
            "asked_until": timestamp(now + timedelta(seconds=claim_s)),
            "revision": 0 if known is None else known.data["revision"],
            "history": [] if known is None else known.data.get("history", []),
        }
        try:
            if known is None:
                return self._documents.create(COLLECTION, key, claim)
            return self._documents.replace(COLLECTION, key, claim, known.version)
        except (DocumentExistsError, DocumentChangedError):
            raise SeriesUnderDecisionError(receipt.series_instance_uid) from None

    def _release(self, claim: Document) -> None:
        """Let the next Instance ask; a claim that cannot be given up ends by itself."""
        with suppress(AxiomError):
            if not claim.data["history"]:
                self._documents.delete(COLLECTION, claim.key, claim.version)
                return
            # What people said before is not to go with it.
            ended = {**claim.data, "asked_until": timestamp(self._clock.now())}
            self._documents.replace(COLLECTION, claim.key, ended, claim.version)

    def _decided(
        self,
        key: str,
        entity: Standardizer,
        question: Question,
        receipt: Receipt,
        decision: Decision,
    ) -> dict[str, Any]:
        proposal = decision.proposal
        state, value = outcome_of(decision, proposes=entity.mode == "propose")
        now = timestamp(self._clock.now())
        return {
            **_identity(key, entity, question, receipt),
            "state": state,
            "value": value,
            "proposal": None if proposal is None else asdict(proposal),
            "failed": dict(decision.failed),
            "revision": 1,
            "decided_at": now,
            "updated_at": now,
            "by": "",
            "reason": "",
            "history": [],
        }


def is_settled_as(data: Data, told: Data) -> bool:
    """True if an Instance that was told `told` of the decision got what it says now."""
    if data["state"] == ASKING:
        return True  # whoever asks has all Instances decided about anew
    return (data["value"], data["state"] == HELD) == (told["value"], told["state"] == HELD)


def key_of(standardizer: str, question: Question, receipt: Receipt) -> str:
    """The key of the decision about the Series of the receipt."""
    asked: list[object] = [standardizer, question.attribute, receipt.study_instance_uid]
    asked.append(receipt.series_instance_uid)
    if question.attribute in OF_THE_IMAGE or not receipt.series_instance_uid:
        asked += [question.raw_value, sorted(question.context.items())]
    return fingerprint(*asked)[:32]


def outcome_of(decision: Decision, *, proposes: bool) -> tuple[str, str | None]:
    """The state that a decision comes to, and the value that Instances get; None for their own."""
    proposal = decision.proposal
    term = None if proposal is None else proposal.value
    if decision.verdict is Verdict.HOLD:
        return HELD, None
    if decision.verdict is Verdict.SET:
        return (PROPOSED, None) if proposes else (APPLIED, term)
    if decision.is_certain:
        return KEPT, None if proposes else term
    if decision.failed:
        return DOWN, None
    return (PROPOSED, None) if term is not None else (UNKNOWN, None)


def _identity(
    key: str, entity: Standardizer, question: Question, receipt: Receipt
) -> dict[str, Any]:
    return {
        "key": key,
        "standardizer": entity.name,
        "attribute": question.attribute,
        "study_instance_uid": receipt.study_instance_uid,
        "series_instance_uid": receipt.series_instance_uid,
        "receipt_id": receipt.receipt_id,  # one whose received file shows what was asked
    }
