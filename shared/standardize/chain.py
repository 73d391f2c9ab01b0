"""Ask providers in turn until one is sure enough, and say what is to happen if none is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from shared.errors import ProviderFailedError, TransientError, UnknownVocabularyError
from shared.standardize.outcomes import ABSTAINED, DISCARDED, SURE, UNSURE
from shared.standardize.proposals import AsksTogether, Proposal, Question, Standardizer
from shared.standardize.vocabulary import BUILT_IN, Vocabulary, built_in

DEFAULT_THRESHOLD = 0.7


class Policy(StrEnum):
    """What happens to an Instance whose Value nobody is sure of."""

    UNCHANGED = "unchanged"
    HOLD = "hold"


class Verdict(StrEnum):
    """`SET` the proposed value; `KEEP` what is there; `HOLD` for people to decide."""

    SET = "set"
    KEEP = "keep"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Link:
    """A provider of a chain and how sure its proposal must be."""

    provider: Standardizer
    threshold: float = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError("a threshold lies above 0 and is at most 1")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one question. `proposal` is the best one made, whatever the verdict;
    None if no provider answered. `failed` are the providers that gave no usable answer, and why. It
    `is_certain` if a provider was sure enough: KEEP means then that the Value is right, and not
    that nobody knows.
    """

    verdict: Verdict
    proposal: Proposal | None
    failed: tuple[tuple[str, str], ...] = ()
    is_certain: bool = False


class Chain:
    """Providers in the order they are asked. Safe to use from several threads."""

    def __init__(
        self,
        links: Sequence[Link],
        *,
        when_unsure: Policy = Policy.UNCHANGED,
        when_down: Policy = Policy.UNCHANGED,
        site: Mapping[str, Vocabulary] | None = None,
        tell: Callable[[str, str, str], None] = lambda *what: None,
    ) -> None:
        """`tell` hears what came of each question that a provider was asked: the provider, the
        vocabulary, and one of ANSWERS or why there was none.
        """
        if not links:
            raise ValueError("a chain needs a provider")
        self._links = tuple(links)
        self._when_unsure, self._when_down = when_unsure, when_down
        self._site = dict(site or {})
        self._tell = tell

    @property
    def identity(self) -> str:
        """Names providers with their models, thresholds and policies: decisions of equal chains are
        alike.
        """
        links = ",".join(
            f"{one.provider.name} {getattr(one.provider, 'model', '')}>={one.threshold:g}"
            for one in self._links
        )
        return f"{links};{self._when_unsure};{self._when_down}"

    @property
    def may_take_long(self) -> bool:
        """True if a provider is asked over the network."""
        return any(getattr(one.provider, "is_remote", False) for one in self._links)

    def vocabulary(self, attribute: str) -> Vocabulary:
        """Raises: UnknownVocabularyError."""
        return self._site.get(attribute) or vocabulary_of(attribute)

    def decide(self, question: Question) -> Decision:
        """As `decide_all` of one."""
        return self.decide_all([question])[0]

    def decide_all(self, questions: Sequence[Question]) -> list[Decision]:
        """About questions of one Series, which a provider may be asked together.

        Raises: UnknownVocabularyError. A provider that is down is passed over, never waited for.
        A Value that is already the proposed term is kept.
        """
        hearings = [_Hearing(one, self.vocabulary(one.attribute)) for one in questions]
        for link in self._links:
            waiting = [one for one in hearings if not one.is_over]
            answers = _asked(link.provider, [one.question for one in waiting])
            for hearing, answer in zip(waiting, answers, strict=True):
                outcome = hearing.hear(link, answer)
                self._tell(link.provider.name, hearing.vocabulary.name, outcome)
        return [self._decision(one) for one in hearings]

    def _decision(self, hearing: _Hearing) -> Decision:
        failed = tuple(hearing.failed)
        if hearing.is_over:
            assert hearing.best is not None
            is_there = hearing.best.value == hearing.question.raw_value.strip()
            verdict = Verdict.KEEP if is_there else Verdict.SET
            return Decision(verdict, hearing.best, failed, is_certain=True)
        policy = self._when_down if failed else self._when_unsure
        verdict = Verdict.HOLD if policy is Policy.HOLD else Verdict.KEEP
        return Decision(verdict, hearing.best, failed)


class ChainProvider:
    """A Standardizer that proposes what a chain is sure of."""

    def __init__(self, name: str, chain: Chain) -> None:
        self.name, self._chain = name, chain

    def propose(self, question: Question) -> Proposal:
        """Raises: ProviderFailedError if nobody is sure and a provider of the chain failed."""
        decision = self._chain.decide(question)
        if decision.is_certain and decision.proposal is not None:
            return decision.proposal
        if decision.failed:
            raise ProviderFailedError(*decision.failed[0])
        evidence = decision.proposal.evidence if decision.proposal else ()
        return Proposal(None, 0.0, evidence, self.name, "", "", "")


@dataclass(slots=True)
class _Hearing:
    """One question on its way along a chain; it `is_over` once `best` is sure enough."""

    question: Question
    vocabulary: Vocabulary
    best: Proposal | None = None
    failed: list[tuple[str, str]] = field(default_factory=list)
    is_over: bool = False

    def hear(self, link: Link, answer: Proposal | TransientError) -> str:
        """What came of it: one of ANSWERS, or why there is none."""
        if isinstance(answer, TransientError):
            is_ours = isinstance(answer, ProviderFailedError)
            reason = str(answer.args[1] if is_ours else answer.code)
            self.failed.append((link.provider.name, reason))
            return reason
        outcome = _outcome(answer, link.threshold, self.vocabulary, self.question)
        self.is_over = outcome == SURE
        is_better = self.best is None or answer.confidence > self.best.confidence
        if self.is_over or (outcome != DISCARDED and is_better):
            self.best = answer
        return outcome


def _asked(
    provider: Standardizer, questions: Sequence[Question]
) -> Sequence[Proposal | TransientError]:
    """Its answers in their order; an error stands for one that it cannot give now."""
    if len(questions) > 1 and isinstance(provider, AsksTogether):
        return provider.propose_all(questions)
    answers: list[Proposal | TransientError] = []
    for question in questions:
        try:
            answers.append(provider.propose(question))
        except TransientError as error:
            answers.append(error)
    return answers


def _outcome(
    proposal: Proposal, threshold: float, vocabulary: Vocabulary, question: Question
) -> str:
    """A retired term may stay where it is found; a new one must be current."""
    value = proposal.value
    if value is None:
        return ABSTAINED
    is_there = value in vocabulary and value == question.raw_value.strip()
    if not is_there and not vocabulary.may_propose(value):
        return DISCARDED
    return SURE if proposal.confidence >= threshold else UNSURE


def vocabulary_of(attribute: str) -> Vocabulary:
    """The built-in vocabulary. Raises: UnknownVocabularyError."""
    if attribute not in BUILT_IN:
        raise UnknownVocabularyError(attribute)
    return built_in(attribute)
