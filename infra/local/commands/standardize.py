"""`axiom standardize`: measure how well raw values become standard terms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.local.options import json_option
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.standardize.evaluation import Outcome, Score


@click.group("standardize", help="Measure how well raw values become standard terms.")
def command() -> None:
    """Needs no home and no running system."""


@command.command("evaluate")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--provider",
    type=click.Choice(["embedded"]),
    default="embedded",
    show_default=True,
    help="Who is asked.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    help='A proposal less sure than this counts as "not known".  [default: 0.7]',
)
@json_option
def evaluate_file(file: Path, provider: str, threshold: float | None, as_json: bool) -> None:
    """Score a provider on FILE, a CSV of labelled series."""
    from shared.errors import InvalidConfigurationError
    from shared.standardize.chain import DEFAULT_THRESHOLD
    from shared.standardize.embedded import EmbeddedStandardizer
    from shared.standardize.evaluation import evaluate, read_labelled

    try:
        series = read_labelled(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise CommandFailedError(f"{file.name} is not UTF-8", code="bad-file") from None
    except InvalidConfigurationError as error:
        raise CommandFailedError(f"{file.name}: {error}", code="bad-file") from None
    least = DEFAULT_THRESHOLD if threshold is None else threshold
    score = evaluate(EmbeddedStandardizer(), series, threshold=least)
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
