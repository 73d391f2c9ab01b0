"""The standardizers of the configuration at work: they look at an Instance and answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from shared import metrics, tracing
from shared.audit import AuditLog
from shared.dicom.standardized import Standardized
from shared.errors import DocumentMissingError
from shared.messages import Receipt
from shared.pipeline.standardization_counts import CACHED, StandardizationCounts
from shared.ports import Clock, DocumentStore
from shared.standardize.outcomes import ANSWERS
from shared.times import timestamp

if TYPE_CHECKING:
    from shared.config.entities import Configuration
    from shared.config.service import ConfigurationService
    from shared.config.standardizers import AnyProvider
    from shared.config.standardizers import Standardizer as Entity
    from shared.dicom.header import Header
    from shared.standardize.chain import Chain, Decision
    from shared.standardize.kept import KeptDecisions
    from shared.standardize.proposals import Question, Standardizer
    from shared.standardize.vocabulary import Vocabulary

log = logging.getLogger(__name__)

# Makes a provider that knows these vocabularies of the site.
ProviderFactory = Callable[["AnyProvider", Mapping[str, "Vocabulary"]], "Standardizer"]

BY: Final = "standardize_attributes"
MIN_THRESHOLD: Final = 1e-9  # of a chain, which has judged already
_MARGIN_S: Final = 15.0  # that a claim lasts longer than its providers may take
_REGION: Final = "AnatomicRegionSequence[0]"


class _Compiled(Struct, frozen=True):
    entity: Entity
    chain: Chain
    kept: KeptDecisions
    links: tuple[tuple[str, Standardizer, float], ...]  # type, provider, threshold
    longest_s: float  # that its providers may take together


class Standardizers:
    """All standardizers of the current configuration. Safe to use from several threads.

    Nothing of it is imported or built before a rule asks.
    """

    def __init__(
        self,
        configuration: ConfigurationService,
        documents: DocumentStore,
        clock: Clock,
        make_provider: ProviderFactory,
    ) -> None:
        self._configuration, self._documents, self._clock = configuration, documents, clock
        self._make_provider = make_provider
        self.counts = StandardizationCounts(documents, clock)
        self._lock = threading.Lock()
        self._known: tuple[int, dict[str, _Compiled]] = (-1, {})

    def answer(
        self, name: str, header: Header, receipt: Receipt, received: Header | None = None
    ) -> Standardized:
        """What the standardizer says of an Instance: the same for all of its Series. `received` is
        its header before rules changed it, if they did: what names somebody there leaves neither.

        One that is gone, or switched off, changes nothing. Raises: SeriesUnderDecisionError while
        a provider is asked about the Series; StorageUnavailableError.
        """
        tracing.note("axiom.standardizer", name)
        found = self._compiled(name)
        if found is None:
            return Standardized(name)
        edits: list[tuple[str, tuple[str, ...]]] = []
        details: list[dict[str, Any]] = []
        waiting: list[str] = []
        decided = self._decisions(found, header, receipt, received)
        for attribute in found.entity.attributes:
            data = decided[attribute]
            if data["state"] == "held":
                waiting.append(attribute)
            made = edits_for(data, found, header)
            edits += made
            details.append(told_of(data, made))
        hold = f"{', '.join(waiting)}: a person has to decide ({name})" if waiting else ""
        return Standardized(name, tuple(edits), hold, tuple(details))

    def provider(self, name: str) -> tuple[Standardizer, float]:
        """Whom to measure, and how sure it must be: the chain of the standardizer of this name, one
        provider of it (NAME/vertex), or the first provider of a type (vertex).

        Raises: DocumentMissingError.
        """
        from shared.standardize.chain import ChainProvider

        wanted, _, type_ = name.partition("/")
        for entity in self._configuration.get().standardizers:
            types = [one.type for one in entity.providers]
            if entity.enabled and (entity.name == wanted or (not type_ and wanted in types)):
                # One of its own: what is measured is not counted.
                found = self._compile(entity, self._configuration.get(), tell=lambda *what: None)
                if entity.name == name:
                    return ChainProvider(name, found.chain), MIN_THRESHOLD
                link = next((one for one in found.links if one[0] == (type_ or wanted)), None)
                if link is not None:
                    return link[1], link[2]
        raise DocumentMissingError("standardizers", name)

    def waits_apart(self, name: str) -> bool:
        """True if the standardizer asks over the network, so that others should not wait for it."""
        found = self._compiled(name)
        return found is not None and found.chain.may_take_long

    def vocabulary(self, name: str, attribute: str) -> Vocabulary:
        """The vocabulary of an Attribute, as the standardizer or (where it is gone) the Standard
        has it. Raises: UnknownVocabularyError.
        """
        from shared.standardize.chain import vocabulary_of

        found = self._compiled(name)
        return vocabulary_of(attribute) if found is None else found.chain.vocabulary(attribute)

    def question(self, name: str, attribute: str, header: Header) -> Question:
        """What providers were asked about the Attribute of such an Instance."""
        from shared.pipeline.standardization_questions import question_about
        from shared.standardize.attributes import DEFAULT_CONTEXT

        found = self._compiled(name)
        context = DEFAULT_CONTEXT if found is None else found.entity.context
        return question_about(header, attribute, context)

    def hits(self, key: str, name: str, question: Question | None) -> dict[str, int]:
        """How often the decision `key` about a Series was at hand for an Instance of it; and how
        often, for another Series, the answer to this question.
        """
        self.counts.write()
        found = self._compiled(name)
        cached = 0
        if found is not None and question is not None:
            cached = self.counts.hits(found.kept.key_of(question))
        return {"hits": self.counts.hits(key), "cache_hits": cached}

    def close(self) -> None:
        """Write the counts that are left."""
        self.counts.close()

    # ---- inside ----------------------------------------------------------------------------

    def _compiled(self, name: str) -> _Compiled | None:
        version, configuration = self._configuration.current()
        with self._lock:
            if self._known[0] != version:
                self._known = (version, {})
            known = self._known[1]
            if name not in known:
                entity = configuration.standardizer(name)
                if entity is None or not entity.enabled:
                    return None
                known[name] = self._compile(entity, configuration, tell=self._tell)
            return known[name]

    def _compile(
        self,
        entity: Entity,
        configuration: Configuration,
        tell: Callable[[str, str, str], None],
    ) -> _Compiled:
        from shared.standardize.chain import Chain, Link, Policy
        from shared.standardize.kept import KeptDecisions, fingerprint
        from shared.standardize.vocabulary import read_site_vocabulary

        site = {}
        for attribute, name in entity.vocabularies.items():
            found = configuration.vocabulary(name)
            assert found is not None  # checked when it was configured
            # What was decided by other terms under the same edition does not count.
            edition = f"{found.edition}+{fingerprint(found.csv)[:8]}"
            site[attribute] = read_site_vocabulary(name, edition, found.csv)
        links = tuple(
            (one.type, self._make_provider(one, site), one.threshold) for one in entity.providers
        )
        chain = Chain(
            [Link(provider, threshold) for _, provider, threshold in links],
            when_unsure=Policy(entity.when_unsure),
            when_down=Policy(entity.when_down),
            site=site,
            tell=tell,
        )
        longest_s = sum(
            one.attempts * one.timeout_s for one in entity.providers if one.type != "embedded"
        )
        kept = KeptDecisions(chain, self._documents, lambda: timestamp(self._clock.now()))
        return _Compiled(entity, chain, kept, links, longest_s)

    def _decisions(
        self, found: _Compiled, header: Header, receipt: Receipt, received: Header | None
    ) -> Mapping[str, Mapping[str, Any]]:
        """By Attribute, what is decided about the Series. Whoever is asked over the network is
        asked about all Attributes together.
        """
        from shared.pipeline.series_decisions import SeriesDecisions
        from shared.pipeline.site_synonyms import SiteSynonyms
        from shared.pipeline.standardization_questions import identifying_words, question_about

        entity, kept = found.entity, found.kept
        series = SeriesDecisions(self._documents, self._clock)
        synonyms = SiteSynonyms(self._documents)
        decided: dict[str, Mapping[str, Any]] = {}
        waiting: list[Question] = []
        for attribute in entity.attributes:
            question = question_about(header, attribute, entity.context)
            known = series.known(entity.name, question, receipt)
            if known is not None:
                decided[attribute] = self._heard(known, is_new=False)
                continue
            said = synonyms.decision(question, found.chain.vocabulary(attribute))
            decision = said or kept.known(question)
            if decision is None and found.chain.may_take_long:
                waiting.append(question)
                continue
            cached = kept.key_of(question) if decision is not None and said is None else ""

            def decide(
                question: Question = question, decision: Decision | None = decision
            ) -> Decision:
                return decision or kept.decide(question)

            data, is_new = series.of(entity, question, receipt, decide)
            decided[attribute] = self._heard(
                data, is_new=is_new, is_asked=decision is None, cached=cached
            )
        if waiting:
            identifying = identifying_words(header)
            if received is not None:
                identifying |= identifying_words(received)
            questions = [replace(one, identifying=identifying) for one in waiting]
            claim_s = found.longest_s * len(questions) + _MARGIN_S
            made = series.of_all(entity, questions, receipt, kept.decide_all, claim_s=claim_s)
            for question, (data, is_new) in zip(questions, made, strict=True):
                decided[question.attribute] = self._heard(data, is_new=is_new, is_asked=True)
        return decided

    def _heard(
        self, data: Mapping[str, Any], *, is_new: bool, is_asked: bool = False, cached: str = ""
    ) -> Mapping[str, Any]:
        """Count where a decision is from; `cached` is the key of an equal question's answer."""
        if is_new:
            if cached:
                self.counts.hit(cached)
            self._note(data, is_cached=bool(cached))
        else:
            self.counts.hit(data["key"])
        _count(data, _asked(data) if is_new and is_asked else "kept")
        return data

    def _tell(self, provider: str, vocabulary: str, outcome: str) -> None:
        """Count what came of asking a provider, and say in the log if it gave no answer."""
        self.counts.count("answered", provider, vocabulary, outcome)
        metrics.PROCESS.count(metrics.STANDARDIZER_ANSWERS, provider, outcome)
        if outcome not in ANSWERS:
            extra = {"provider": provider, "reason": outcome}
            log.warning("no usable answer of a provider of standard terms", extra=extra)

    def _note(self, data: Mapping[str, Any], *, is_cached: bool) -> None:
        """Count a decision; one that changes Instances is in the audit log as well."""
        proposal = data["proposal"] or {}
        provider, vocabulary = proposal.get("provider", ""), proposal.get("vocabulary", "")
        if data["state"] == "down":
            provider = next(iter(data["failed"]))
        who = (data["standardizer"], data["attribute"], provider, vocabulary)
        self.counts.count("decided", *who, data["state"])
        if is_cached:
            self.counts.count("decided", *who, CACHED)
        if data["value"] is not None:
            AuditLog(self._documents, self._clock).add(
                who=BY,
                what=f"standardize.{data['state']}",
                id=data["key"],
                after=data["value"],
                standardizer=data["standardizer"],
                attribute=data["attribute"],
                series_instance_uid=data["series_instance_uid"],
                **audited(proposal),
            )


def _asked(data: Mapping[str, Any]) -> str:
    """Who answered, of those that were asked."""
    provider = (data["proposal"] or {}).get("provider")
    if provider is None:
        return "none"
    return "embedded" if provider == "embedded" else "remote"


def _count(data: Mapping[str, Any], answer: str) -> None:
    from shared.pipeline.series_decisions import OPEN

    answer = "review" if data["state"] in OPEN else answer
    metrics.PROCESS.count(metrics.STANDARDIZED, data["standardizer"], data["attribute"], answer)


def edits_for(
    data: Mapping[str, Any], found: _Compiled, header: Header
) -> list[tuple[str, tuple[str, ...]]]:
    """What the decision changes in this Instance."""
    entity, value = found.entity, data["value"]
    if value is None:
        return []
    attribute = data["attribute"]
    target = entity.write_to.get(attribute, attribute)
    edits: list[tuple[str, tuple[str, ...]]] = []
    if _text(header, target) != value:
        edits.append((target, (value,)))
    if attribute == "BodyPartExamined" and entity.fill_anatomic_region:
        term = found.chain.vocabulary(attribute).terms.get(value)
        if term is not None and term.code and not _says_a_region(header):
            edits += [
                (f"{_REGION}.CodeValue", (term.code,)),
                (f"{_REGION}.CodingSchemeDesignator", (term.scheme,)),
                (f"{_REGION}.CodeMeaning", (term.meaning or value,)),
            ]
    return edits


def told_of(data: Mapping[str, Any], edits: list[tuple[str, tuple[str, ...]]]) -> dict[str, Any]:
    """What an Instance's document keeps of a decision."""
    proposal = data["proposal"] or {}
    kept = ("provider", "model", "vocabulary", "edition", "confidence", "evidence")
    return {
        **{name: data[name] for name in ("key", "standardizer", "attribute", "state", "revision")},
        **{name: proposal[name] for name in kept if name in proposal},
        "value": data["value"],
        "written": [path for path, _ in edits],
        "by": data["by"],
    }


def audited(proposal: Mapping[str, Any]) -> dict[str, str]:
    """Who proposed, and on which evidence; no text of the Instance itself."""
    if not proposal:
        return {}
    return {
        "provider": str(proposal["provider"]),
        "model": str(proposal["model"]),
        "vocabulary": f"{proposal['vocabulary']} {proposal['edition']}".strip(),
        "confidence": str(proposal["confidence"]),
        "evidence": "; ".join(
            " ".join(filter(None, (one["source"], one["how"]))) for one in proposal["evidence"]
        ),
    }


def _text(header: Header, path: str) -> str | None:
    try:
        return header.text(path)
    except ValueError:
        return None


def _says_a_region(header: Header) -> bool:
    element = header.element("AnatomicRegionSequence")
    return element is not None and bool(element.items)
