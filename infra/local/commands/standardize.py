"""`axiom standardize`: measure how well raw values become standard terms, and decide for people."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import json_option, open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.client import Client
    from shared.pipeline.ports import Ports
    from shared.pipeline.standardization_reviews import Settled
    from shared.standardize.evaluation import Outcome, Score
    from shared.standardize.proposals import Standardizer

_STATES = (
    "open",
    "all",
    "applied",
    "kept",
    "unknown",
    "down",
    "proposed",
    "held",
    "approved",
    "corrected",
    "rejected",
    "reverted",
)

always_option = click.option(
    "--always", is_flag=True, help="From now on: the phrase becomes a synonym of the site."
)
reason_option = click.option("--reason", default="", help="Kept with the decision.")


@click.group("standardize", help="Measure how raw values become standard terms; decide about them.")
def command() -> None:
    """`evaluate` with the embedded provider needs no home; nothing here needs a running system."""


@command.command("evaluate")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--provider",
    metavar="WHO",
    default="embedded",
    show_default=True,
    help="embedded, or of the configuration: a standardizer's NAME (its whole chain), NAME/vertex, "
    "or vertex or openai for the first of its kind.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    help='A proposal less sure than this counts as "not known".  [default: 0.7, or as configured]',
)
@json_option
def evaluate_file(file: Path, provider: str, threshold: float | None, as_json: bool) -> None:
    """Score a provider on FILE, a CSV of labelled series."""
    from shared.errors import InvalidConfigurationError, UnknownVocabularyError
    from shared.standardize.evaluation import evaluate, read_labelled

    try:
        series = read_labelled(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise CommandFailedError(f"{file.name} is not UTF-8", code="bad-file") from None
    except InvalidConfigurationError as error:
        raise CommandFailedError(f"{file.name}: {error}", code="bad-file") from None
    asked, least = _provider(provider)
    least = least if threshold is None else threshold
    try:
        score = evaluate(asked, series, threshold=least)
    except UnknownVocabularyError as error:
        raise CommandFailedError(
            f"{file.name}: {error}", hint=error.hint, code=error.code
        ) from None
    terminal = Terminal(as_json)
    terminal.document(
        {
            "file": file.name,
            "provider": provider,
            "threshold": least,
            **score.counts(),
            "by_kind": score.by_kind(),
            "confusion": [_confusion(one) for one in score.wrong()],
        }
    )
    if not as_json:
        _show(score, terminal)


@command.command("reviews")
@click.option(
    "--state",
    type=click.Choice(_STATES),
    default="open",
    show_default=True,
    help="open: what waits for a person.",
)
@click.option("--series", "series_uid", default="", metavar="UID", help="Series Instance UID.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@json_option
def reviews(state: str, series_uid: str, limit: int, as_json: bool) -> None:
    """List decisions about Series, the newest first."""
    from shared.pipeline import standardization_reviews
    from shared.pipeline.series_decisions import OPEN

    found: list[Mapping[str, Any]]
    if (api := remote()) is not None:
        there = api.reviews(limit=limit, state=state, series_uid=series_uid)
        found, more = list(there.items), there.next_cursor is not None
    else:
        states = {"open": OPEN, "all": ()}.get(state, (state,))
        page = standardization_reviews.find(
            open_ports(), states=states, series_instance_uid=series_uid, limit=limit
        )
        found = [standardization_reviews.summary(one.data) for one in page.documents]
        more = page.cursor is not None
    terminal = Terminal(as_json)
    terminal.document(found)
    terminal.table(
        ["key", "state", "attribute", "proposed", "confidence", "provider", "series"],
        [
            [
                one["key"],
                one["state"],
                one["attribute"],
                one["value"] or one["proposed"] or _failures(one),
                one["confidence"],
                one["provider"] or "",
                one["series_instance_uid"],
            ]
            for one in found
        ],
        empty="Nothing waits for a person." if state == "open" else "No decisions.",
    )
    if more and not as_json:
        terminal.say(f"There are more than {limit}; see --limit.", style="dim")


@command.command("show")
@click.argument("key", metavar="KEY")
@json_option
def show(key: str, as_json: bool) -> None:
    """Show one decision: what was asked, what was proposed, and on which evidence."""
    from shared.pipeline import standardization_reviews

    api = remote()
    found: Mapping[str, Any] = (
        _tried(lambda ports: standardization_reviews.read(key, ports, by=principal()))
        if api is None
        else api.review(key)
    )
    terminal = Terminal(as_json)
    terminal.document(found)
    rows = [[name, value] for name, value in found.items() if value and name not in _IN_PARTS]
    rows += [[name, value] for name, value in (found["context"] or {}).items()]
    rows += [["evidence", _in_words(one)] for one in found["evidence"]]
    terminal.table(["", ""], rows)


@command.command("approve")
@click.argument("key", metavar="KEY")
@always_option
@json_option
def approve(key: str, always: bool, as_json: bool) -> None:
    """What was proposed is right: all Instances of the Series get it."""
    from shared.pipeline import standardization_reviews as people

    _settle(
        lambda ports: people.approve(key, ports, by=principal(), always=always),
        lambda api: api.settle_review(key, "approve", {"always": always}),
        as_json,
    )


@command.command("correct")
@click.argument("key", metavar="KEY")
@click.argument("value", metavar="TERM")
@always_option
@reason_option
@json_option
def correct(key: str, value: str, always: bool, reason: str, as_json: bool) -> None:
    """TERM is right, also in place of one that was applied; what was delivered is sent again."""
    from shared.pipeline import standardization_reviews as people

    _settle(
        lambda ports: people.correct(
            key, value, ports, by=principal(), always=always, reason=reason
        ),
        lambda api: api.settle_review(
            key, "correct", {"value": value, "always": always, "reason": reason}
        ),
        as_json,
    )


@command.command("reject")
@click.argument("key", metavar="KEY")
@reason_option
@json_option
def reject(key: str, reason: str, as_json: bool) -> None:
    """What was proposed is wrong: the Instances go on as they came."""
    from shared.pipeline import standardization_reviews as people

    _settle(
        lambda ports: people.reject(key, ports, by=principal(), reason=reason),
        lambda api: api.settle_review(key, "reject", {"reason": reason}),
        as_json,
    )


@command.command("revert")
@click.argument("key", metavar="KEY")
@reason_option
@json_option
def revert(key: str, reason: str, as_json: bool) -> None:
    """Take back what was applied: the Instances are delivered again as they came."""
    from shared.pipeline import standardization_reviews as people

    _settle(
        lambda ports: people.revert(key, ports, by=principal(), reason=reason),
        lambda api: api.settle_review(key, "revert", {"reason": reason}),
        as_json,
    )


@command.command("ask-again")
@click.argument("key", metavar="[KEY]", required=False)
@click.option(
    "--failed", is_flag=True, help="All decisions for which a provider gave no usable answer."
)
@json_option
def ask_again(key: str | None, failed: bool, as_json: bool) -> None:
    """Have the providers decide anew about KEY, or about all that they failed at."""
    from shared.pipeline import standardization_reviews as people

    if (key is None) is not failed:
        raise click.UsageError("give a KEY or --failed")
    if key is not None:
        _settle(
            lambda ports: people.ask_again(key, ports, by=principal()),
            lambda api: api.settle_review(key, "ask-again"),
            as_json,
        )
        return
    keys = [one["key"] for state in ("down", "held") for one in _decisions(state) if one["failed"]]
    again = gone = 0
    for one in keys:
        if (api := remote()) is not None:
            settled = api.settle_review(one, "ask-again")
            again, gone = again + settled["again"], gone + settled["gone"]
        else:
            done: Settled = _tried(partial(people.ask_again, one, by=principal()))
            again, gone = again + done.again, gone + done.gone
    terminal = Terminal(as_json)
    terminal.document({"decisions": len(keys), "again": again, "gone": gone})
    if not as_json:
        terminal.say(f"{len(keys)} decisions: {again} Instances are decided about anew")
        if gone:
            terminal.say(f"{gone} cannot be: their received files are gone")


@command.command("synonyms")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
@json_option
def synonyms(limit: int, as_json: bool) -> None:
    """List what people of the site said once and for all, the newest first."""
    from shared.pipeline.site_synonyms import SiteSynonyms

    api = remote()
    found: list[Mapping[str, Any]] = (
        [one.data for one in SiteSynonyms(open_ports().documents).page(limit, None).documents]
        if api is None
        else list(itertools.islice(api.synonyms(), limit))
    )
    terminal = Terminal(as_json)
    terminal.document(found)
    terminal.table(
        ["key", "attribute", "in", "phrase", "term", "by", "at"],
        [
            [one[name] for name in ("key", "attribute", "source", "phrase", "value", "by", "at")]
            for one in found
        ],
        empty="No synonyms.",
    )


@command.command("forget")
@click.argument("key", metavar="KEY")
@json_option
def forget(key: str, as_json: bool) -> None:
    """Have the synonym KEY count no more; what was decided by it stays."""
    from shared.pipeline import standardization_reviews

    if (api := remote()) is not None:
        api.forget_synonym(key)
    else:
        _tried(lambda ports: standardization_reviews.forget_synonym(key, ports, by=principal()))
    terminal = Terminal(as_json)
    terminal.document({"forgotten": key})
    if not as_json:
        terminal.say("forgotten")


@command.command("report")
@json_option
def report(as_json: bool) -> None:
    """Count what each provider decided, and what people made of it; in Series."""
    from shared.pipeline import standardization_report
    from shared.standardize.outcomes import ANSWERS

    api = remote()
    found: Mapping[str, Any] = (
        standardization_report.report(open_ports()) if api is None else api.standardize_report()
    )
    terminal = Terminal(as_json)
    terminal.document(found)
    columns = standardization_report.COLUMNS
    terminal.table(
        ["standardizer", "attribute", "provider", *columns],
        [
            [
                *(one[name] for name in ("standardizer", "attribute", "provider")),
                *(one[column] for column in columns),
            ]
            for one in found["series"]
        ],
        empty="Nothing was decided yet.",
    )
    if found["providers"]:
        terminal.table(
            ["provider", "vocabulary", *ANSWERS],
            [
                [one["provider"], one["vocabulary"], *(one[outcome] for outcome in ANSWERS)]
                for one in found["providers"]
            ],
            title="answers to new questions",
        )
    for provider, number in found["discarded"].items():
        terminal.say(f"{provider}: {number} answers were no term and were discarded")
    for provider, reasons in found["failed"].items():
        told = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
        terminal.say(f"{provider}: no usable answer: {told}")


def _provider(name: str) -> tuple[Standardizer, float]:
    from shared.errors import DocumentMissingError
    from shared.standardize.chain import DEFAULT_THRESHOLD
    from shared.standardize.embedded import EmbeddedStandardizer

    if name == "embedded":
        return EmbeddedStandardizer(), DEFAULT_THRESHOLD
    try:
        return open_ports().standardizers.provider(name)
    except DocumentMissingError:
        raise CommandFailedError(
            f"no standardizer of the configuration is, or asks, {name}",
            hint="See `axiom config export`, or leave --provider out.",
            code="no-provider",
        ) from None


def _decisions(state: str) -> Iterator[Mapping[str, Any]]:
    """All in this state, wherever they are."""
    from shared.pipeline import standardization_reviews

    cursor = None
    while True:
        if (api := remote()) is not None:
            there = api.reviews(limit=500, state=state, cursor=cursor)
            yield from there.items
            cursor = there.next_cursor
        else:
            page = standardization_reviews.find(
                open_ports(), states=(state,), limit=500, cursor=cursor
            )
            yield from [standardization_reviews.summary(one.data) for one in page.documents]
            cursor = page.cursor
        if cursor is None:
            return


def _failures(decision: Mapping[str, Any]) -> str:
    return ", ".join(f"{provider}: {reason}" for provider, reason in decision["failed"].items())


def _tried(do: Callable[[Ports], Any]) -> Any:
    from shared.errors import AxiomError

    try:
        return do(open_ports())
    except AxiomError as error:
        raise CommandFailedError(str(error), hint=error.hint, code=error.code) from None


def _settle(
    here: Callable[[Ports], Settled],
    there: Callable[[Client], Mapping[str, Any]],
    as_json: bool,
) -> None:
    from shared.pipeline.standardization_reviews import summary

    api = remote()
    if api is None:
        done: Settled = _tried(here)
        settled: Mapping[str, Any] = {
            "decision": summary(done.decision),
            "again": done.again,
            "gone": done.gone,
        }
    else:
        settled = there(api)
    decision = settled["decision"]
    terminal = Terminal(as_json)
    terminal.document(settled)
    if as_json:
        return
    told = f" as {decision['value']}" if decision["value"] else ""
    terminal.say(
        f"{decision['attribute']} of series {decision['series_instance_uid']}: "
        f"{decision['state']}{told}; {settled['again']} Instances are decided about anew"
    )
    if settled["gone"]:
        terminal.say(f"{settled['gone']} cannot be sent again: their received files are gone")


_IN_PARTS = frozenset({"evidence", "context", "history"})


def _in_words(evidence: dict[str, str]) -> str:
    return " ".join(filter(None, (evidence["source"], evidence["phrase"], f"({evidence['how']})")))


def _show(score: Score, terminal: Terminal) -> None:
    counts = score.counts()
    terminal.table(
        ["measure", "of", "count", "share"],
        [
            _share("right", "decidable rows", counts["right"], counts["decidable"]),
            _share("wrong overwrites", "keep rows", counts["keep_changed"], counts["keep"]),
            _share("guesses", "abstain rows", counts["abstain_guessed"], counts["abstain"]),
        ],
    )
    terminal.table(
        ["kind", "rows", "right"],
        [[kind, one["rows"], one["right"]] for kind, one in score.by_kind().items()],
    )
    terminal.table(
        ["row", "kind", "attribute", "raw value", "expected", "answer", "evidence"],
        [[str(value) for value in _confusion(one).values()] for one in score.wrong()],
        title="wrong",
        empty="every row is right",
    )


def _share(measure: str, of: str, count: int, total: int) -> list[str]:
    share = f"{count / total:.1%}" if total else "-"
    return [measure, f"{total} {of}", str(count), share]


def _confusion(outcome: Outcome) -> dict[str, str]:
    series, proposal = outcome.series, outcome.proposal
    return {
        "id": series.row_id,
        "kind": series.kind,
        "attribute": series.question.attribute,
        "raw_value": series.question.raw_value,
        "expected": "|".join([series.expected, *sorted(series.acceptable)]),
        "answer": outcome.answer or "not known",
        "evidence": "; ".join(
            " ".join(filter(None, (one.source, one.phrase, f"({one.how})")))
            for one in proposal.evidence
        ),
    }
