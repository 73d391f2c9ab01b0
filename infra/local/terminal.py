"""What a command prints: tables for a person, one JSON document for a program.

With `--json` standard output holds one JSON document and nothing else, errors included; everything
said on the way goes to standard error. Colour appears on a terminal alone and never with NO_COLOR.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from shared.errors import Fault

# On a pipe there is no width to fit into; lines are long enough there for UIDs to stay whole.
_WIDTH_WITHOUT_TERMINAL = 200

# Columns of what other commands take: to be copied, it must not be folded.
_IDENTIFIERS = frozenset(("id", "receipt", "key", "Study Instance UID"))
# A table is one while no other column is folded to less than this, or than its longest word.
_NARROW = 16
_BETWEEN_COLUMNS = 3

# The words of states, in the colours that they have in every table.
_STATE_STYLES = {
    "ok": "green",
    "delivered": "green",
    "routed": "green",
    "retried": "cyan",
    "retrying": "yellow",
    "held": "yellow",
    "quarantined": "yellow",
    "superseded": "dim",
    "pending": "yellow",
    "open": "red",
    "failed": "red",
    "archived": "dim",
    "discarded": "dim",
}


class CommandFailedError(Exception):
    """A command could not do what it was asked: exit status 1. args: what to tell the user."""

    def __init__(self, message: str, *, hint: str = "", code: str = "failed") -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


class Terminal:
    """Standard output of one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Where a person reads: standard output, or standard error beside a JSON document."""
        if self._console is None:
            self._console = console(stderr=self.as_json)
        return self._console

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """One line for a person; markup in it is not read."""
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        title: str = "",
        empty: str = "",
    ) -> None:
        """A table for a person, or `empty` if there is no row; nothing with `--json`.

        Where a terminal is too narrow for it, each row is a paragraph.
        """
        if self.as_json:
            return
        if not rows and empty:
            self.say(empty, style="dim")
            return
        if title:
            self.say(title, style="bold")
        if columns[0] in _IDENTIFIERS and _width(columns, rows) > self.console.width:
            for row in rows:
                self.console.print(_paragraph(columns, row))
            return
        table = new_table(columns)
        for row in rows:
            table.add_row(*(cell(value) for value in row))
        self.console.print(table)

    def document(self, value: object) -> None:
        """The JSON document; nothing without `--json`."""
        if self.as_json:
            print(json.dumps(value, indent=2, ensure_ascii=False, default=str), flush=True)


def new_table(columns: Sequence[str]) -> Table:
    """An empty table in the house's style; columns without any name have no header."""
    from rich import box
    from rich.table import Table

    table = Table(
        show_header=any(columns),
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _IDENTIFIERS)
    return table


def _width(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """Of the narrowest table that shows identifiers whole."""
    total = _BETWEEN_COLUMNS * len(columns)
    for name, *values in zip(columns, *rows, strict=True):
        longest = max(
            len(word) for value in (name, *values) for word in (*_worded(value).split(), "")
        )
        total += longest if name in _IDENTIFIERS else min(longest, _NARROW)
    return total


def _paragraph(columns: Sequence[str], row: Sequence[object]) -> Table:
    """One row with a line for each column that has something to say, and an empty one."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", width=max(map(len, columns)))
    grid.add_column(overflow="fold")
    for name, value in zip(columns, row, strict=True):
        if _worded(value):
            grid.add_row(name, cell(value))
    grid.add_row()
    return grid


def cell(value: object) -> Any:
    """A table's cell: text as it is, in the colour of the state that it names."""
    from rich.text import Text

    text = _worded(value)
    return Text(text, style=_STATE_STYLES.get(text.split(" ")[0], ""))


def _worded(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error; rich itself honours NO_COLOR."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width)


def print_error(
    message: str,
    *,
    as_json: bool,
    code: str = "failed",
    hint: str = "",
    faults: Sequence[Fault] = (),
) -> None:
    """Say what went wrong, and what to do, on standard error; with `--json` as the document."""
    if as_json:
        error: Mapping[str, object] = {
            "code": code,
            "message": message,
            "hint": hint,
            "faults": [{"path": f.path, "message": f.message, "hint": f.hint} for f in faults],
        }
        print(json.dumps({"error": error}, indent=2, ensure_ascii=False), flush=True)
        return
    from rich.text import Text

    out = console(stderr=True)
    lines = [Text.assemble(("error: ", "bold red"), message)]
    for fault in faults:
        line = Text.assemble("  ", (fault.path, "bold"), f": {fault.message}")
        if fault.hint:
            line.append(f" ({fault.hint})", style="dim")
        lines.append(line)
    if hint:
        lines.append(Text(hint, style="dim"))
    for line in lines:
        out.print(line, soft_wrap=True)
