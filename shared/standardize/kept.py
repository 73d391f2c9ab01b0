"""Decisions that were made before, for equal questions."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
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

    What is stored names no raw value: the question is kept as a hash alone. A new edition of the
    vocabulary or another chain decides anew.
    """

    def __init__(self, chain: Chain, documents: DocumentStore, now: Callable[[], str]) -> None:
        """`now` is the time as documents hold it: what was decided long ago is forgotten."""
        self._chain, self._documents, self._now = chain, documents, now
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, Decision] = OrderedDict()
        self._hits = {"in_memory": 0, "stored": 0, "made": 0}

    @property
    def hits(self) -> Hits:
        with self._lock:
            return Hits(**self._hits)

    def known(self, question: Question) -> Decision | None:
        """What was decided before; None if nothing was. Raises: as `decide`."""
        key = self.key_of(question)
        with self._lock:
            found = self._memory.get(key)
            if found is not None:
                self._memory.move_to_end(key)
                self._hits["in_memory"] += 1
                return found
        stored = self._documents.get(COLLECTION, key)
        return None if stored is None else self._remember(key, from_document(stored.data), "stored")

    def decide(self, question: Question) -> Decision:
        """As `decide_all` of one."""
        return self.decide_all([question])[0]

    def decide_all(self, questions: Sequence[Question]) -> list[Decision]:
        """As Chain.decide_all, and the same for an equal question.

        Raises: UnknownVocabularyError, StorageUnavailableError.
        """
        known = [self.known(one) for one in questions]
        new = [one for one, found in zip(questions, known, strict=True) if found is None]
        made = iter(self._chain.decide_all(new) if new else ())
        return [
            self._kept(one, next(made)) if found is None else found
            for one, found in zip(questions, known, strict=True)
        ]

    def _kept(self, question: Question, decision: Decision) -> Decision:
        if decision.failed and not decision.is_certain:
            # A provider was down: whoever comes next asks again.
            return decision
        key = self.key_of(question)
        try:
            document = {**to_document(decision), "at": self._now()}
            self._documents.create(COLLECTION, key, document)
        except DocumentExistsError:
            # Somebody decided at the same time; theirs holds.
            first = self._documents.get(COLLECTION, key)
            if first is not None:
                return self._remember(key, from_document(first.data), "stored")
        return self._remember(key, decision, "made")

    def key_of(self, question: Question) -> str:
        """The key of the decision: raw value, context, vocabulary with its edition, providers."""
        vocabulary = self._chain.vocabulary(question.attribute)
        asked = [question.attribute, question.raw_value, sorted(question.context.items())]
        return fingerprint(self._chain.identity, vocabulary.name, vocabulary.edition, asked)

    def _remember(self, key: str, decision: Decision, where: str) -> Decision:
        with self._lock:
            self._hits[where] += 1
            self._memory[key] = decision
            while len(self._memory) > _IN_MEMORY:
                self._memory.popitem(last=False)
        return decision


def fingerprint(*asked: object) -> str:
    """64 hex digits that are equal for equal JSON values."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def to_document(decision: Decision) -> dict[str, Any]:
    """A decision as JSON values."""
    proposal = asdict(decision.proposal) if decision.proposal else None
    return {
        "verdict": decision.verdict.value,
        "proposal": proposal,
        "is_certain": decision.is_certain,
    }


def from_document(data: Mapping[str, Any]) -> Decision:
    """A decision that `to_document` wrote; other fields are ignored."""
    proposal = proposal_from(data["proposal"])
    return Decision(Verdict(data["verdict"]), proposal, is_certain=data["is_certain"])


def proposal_from(data: Mapping[str, Any] | None) -> Proposal | None:
    """A proposal that was written as JSON values."""
    if data is None:
        return None
    evidence = tuple(Evidence(**one) for one in data["evidence"])
    return Proposal(**{**data, "evidence": evidence})
