"""Decisions that were made before: the same for equal questions, and for all of a Series."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shared.errors import DocumentExistsError
from shared.ports import DocumentStore
from shared.standardize.chain import Chain, Decision, Verdict
from shared.standardize.proposals import Evidence, Proposal, Question

COLLECTION = "standardization-decisions"

_IN_MEMORY = 4096


@dataclass(frozen=True, slots=True)
class Hits:
    """How often an answer was at hand, in memory or in the store, or was to be made."""

    in_memory: int = 0
    stored: int = 0
    made: int = 0


class KeptDecisions:
    """A Chain that remembers, in a DocumentStore and in memory. Safe to use from several threads.

    What is stored names no Value of a patient's: the question is kept as a hash alone. A new
    edition of the vocabulary or another chain decides anew.
    """

    def __init__(self, chain: Chain, documents: DocumentStore) -> None:
        self._chain, self._documents = chain, documents
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, Decision] = OrderedDict()
        self._hits = {"in_memory": 0, "stored": 0, "made": 0}

    @property
    def hits(self) -> Hits:
        with self._lock:
            return Hits(**self._hits)

    def decide(self, question: Question) -> Decision:
        """As Chain.decide, and the same for an equal question.

        Raises: UnknownVocabularyError, StorageUnavailableError.
        """
        fingerprint = self._fingerprint(
            question.attribute, question.raw_value, sorted(question.context.items())
        )
        return self._decide(f"q-{fingerprint}", question)

    def decide_for_series(self, series_instance_uid: str, question: Question) -> Decision:
        """As `decide`, but the first decision for a Series holds for all its Instances: a Value
        that some of them lack or spell otherwise becomes the same in all. An Instance that has the
        decided Value is kept as it is.
        """
        fingerprint = self._fingerprint(question.attribute, series_instance_uid)
        decision = self._decide(f"s-{fingerprint}", question)
        proposal = decision.proposal
        if decision.verdict is Verdict.HOLD or proposal is None or proposal.value is None:
            return decision
        if decision.verdict is Verdict.KEEP and not self._is_term(question.attribute, proposal):
            return decision
        is_there = proposal.value == question.raw_value.strip()
        verdict = Verdict.KEEP if is_there else Verdict.SET
        return Decision(verdict, proposal, decision.failed)

    def _is_term(self, attribute: str, proposal: Proposal) -> bool:
        """True if KEEP meant "this is right", not "nobody is sure"."""
        return proposal.confidence == 1 and proposal.value in self._chain.vocabulary(attribute)

    def _decide(self, key: str, question: Question) -> Decision:
        with self._lock:
            known = self._memory.get(key)
            if known is not None:
                self._memory.move_to_end(key)
                self._hits["in_memory"] += 1
                return known
        stored = self._documents.get(COLLECTION, key)
        if stored is not None:
            return self._remember(key, _from_document(stored.data), "stored")
        decision = self._chain.decide(question)
        if decision.failed:
            # A provider was down: the next Instance asks again.
            return decision
        try:
            self._documents.create(COLLECTION, key, _to_document(decision))
        except DocumentExistsError:
            # Somebody decided at the same time; theirs holds, so that a Series stays of one mind.
            first = self._documents.get(COLLECTION, key)
            if first is not None:
                return self._remember(key, _from_document(first.data), "stored")
        return self._remember(key, decision, "made")

    def _remember(self, key: str, decision: Decision, where: str) -> Decision:
        with self._lock:
            self._hits[where] += 1
            self._memory[key] = decision
            while len(self._memory) > _IN_MEMORY:
                self._memory.popitem(last=False)
        return decision

    def _fingerprint(self, attribute: str, *asked: object) -> str:
        vocabulary = self._chain.vocabulary(attribute)
        identity = [self._chain.identity, attribute, vocabulary.name, vocabulary.edition, asked]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _to_document(decision: Decision) -> dict[str, Any]:
    proposal = asdict(decision.proposal) if decision.proposal else None
    return {"verdict": decision.verdict.value, "proposal": proposal}


def _from_document(data: Mapping[str, Any]) -> Decision:
    proposal = data["proposal"]
    if proposal is not None:
        evidence = tuple(Evidence(**one) for one in proposal["evidence"])
        proposal = Proposal(**{**proposal, "evidence": evidence})
    return Decision(Verdict(data["verdict"]), proposal)
