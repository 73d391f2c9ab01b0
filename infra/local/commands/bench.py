"""`axiom bench`: figures against other programs, judged by their targets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from infra.local.benches import Row, bench_names, details, load, machine, markdown, notes, rows_of
from infra.local.options import json_option
from infra.local.terminal import Terminal

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"


@click.command(
    "bench",
    help=f"Measure against other routers and plain libraries: {', '.join(bench_names())}.",
)
@click.argument("names", nargs=-1, type=click.Choice(bench_names()), metavar="[BENCH]...")
@click.option("--rounds", type=click.IntRange(3, 10_000), default=200, show_default=True)
@click.option(
    "--markdown",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the table there.  [docs/benchmarks.md when every bench runs]",
)
@json_option
def command(names: Sequence[str], rounds: int, page: Path | None, as_json: bool) -> int:
    """Exit status 1 if a target is not met."""
    terminal = Terminal(as_json)
    where, values, rows = machine(), dict[str, Any](), list[Row]()
    for name in names or bench_names():
        print(f"axiom: bench {name}", file=sys.stderr, flush=True)
        values[name] = dict(load(name)(rounds))
        rows += rows_of(name, values[name])
    terminal.document(values)
    terminal.table(
        ["bench", "what", "value", "target", ""],
        [
            [
                row.bench,
                row.target.meaning,
                f"{row.value:.3g}",
                row.target,
                "ok" if row.is_met else "failed",
            ]
            for row in rows
        ],
        title=", ".join(f"{name} {value}" for name, value in where.items()),
    )
    for name, found in values.items():
        if shown := details(name, found):
            terminal.table(shown[0], shown[1:])
    if page is None and not names:
        page = _PAGE
    if page is not None:
        kept = notes(page.read_text(encoding="utf-8")) if page.exists() else ""
        table = markdown(rows, where, " ".join(["axiom bench", *names]))
        page.write_text(table + kept, encoding="utf-8")
        print(f"axiom: the table is in {page}", file=sys.stderr, flush=True)
    return int(not all(row.is_met for row in rows))
