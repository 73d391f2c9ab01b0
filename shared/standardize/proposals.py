"""What a provider is asked, and what it proposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from shared.errors import TransientError


@dataclass(frozen=True, slots=True)
class Question:
    """Which term of a vocabulary stands for a raw value?

    `context` has the Values of other Attributes by keyword (Modality, BodyPartExamined,
    StudyDescription, SeriesDescription, ProtocolName): what a provider may look at, and no more.
    `identifying` are folded words that may name the patient or somebody else; what leaves the
    machine has none of them.
    """

    attribute: str
    raw_value: str
    context: Mapping[str, str] = field(default_factory=dict)
    identifying: frozenset[str] = field(default=frozenset(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why: `phrase` of the vocabulary was recognised in the Attribute `source`, and how.

    `source` is empty where the modality or a convention decided.
    """

    source: str
    phrase: str
    how: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A term for one question. `value` is None for "not known"; then the confidence is 0.

    `confidence` runs from 0 to 1 and orders proposals of one provider; it is not a measured
    probability.
    """

    value: str | None
    confidence: float
    evidence: tuple[Evidence, ...]
    provider: str
    model: str
    vocabulary: str
    edition: str

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise ValueError("confidence runs from 0 to 1")


class Standardizer(Protocol):
    """A provider of proposals. May be used from several threads at once."""

    name: str

    def propose(self, question: Question) -> Proposal:
        """A term of the vocabulary, or None with the reason as evidence; any text is answered.

        Raises: UnknownVocabularyError if this provider has none for the Attribute;
        TransientError if the provider cannot be reached now.
        """


@runtime_checkable
class AsksTogether(Protocol):
    """A Standardizer to which several questions about one Series are one request."""

    def propose_all(self, questions: Sequence[Question]) -> Sequence[Proposal | TransientError]:
        """The answers in the order of the questions, whose Attributes differ; an error stands for
        one that cannot be got now. Raises: UnknownVocabularyError.
        """
