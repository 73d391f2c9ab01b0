"""`axiom exceptions`: what could not be done, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from infra.local.options import json_option, open_ports, principal
from infra.local.terminal import Terminal
from shared.errors import AxiomError

STATUSES = ("open", "retried", "archived")
CATEGORIES = ("validation", "processing", "storage", "network", "resource", "configuration")

# What a retry needs is no reading matter.
_MACHINE_FIELDS = frozenset({"retry_message"})


@click.group("exceptions", help="List, show, retry and archive what could not be done.")
def command() -> None:
    """Works on AXIOM_HOME itself, whether the system runs or not."""


@command.command("list")
@click.option("--status", type=click.Choice((*STATUSES, "all")), default="open", show_default=True)
@click.option("--category", type=click.Choice(CATEGORIES))
@click.option("--destination", metavar="NAME")
@click.option("--study", metavar="UID", help="Only of this Study Instance UID.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@json_option
def list_(
    status: str,
    category: str | None,
    destination: str | None,
    study: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the entries, newest first."""
    terminal = Terminal(as_json)
    where = {
        "status": "" if status == "all" else status,
        "category": category or "",
        "destination": destination or "",
        "study_instance_uid": study or "",
    }
    page = open_ports().exceptions.list(where=where, limit=limit)
    entries = [_readable(document.data) for document in page.documents]
    terminal.document({"exceptions": entries, "more": page.cursor is not None})
    terminal.table(
        ["id", "when", "status", "category", "code", "destination", "what happened"],
        [
            [
                e["id"],
                e["last_at"][:19].replace("T", " "),
                e["status"],
                e["category"],
                e["code"],
                e["destination"],
                e["message"],
            ]
            for e in entries
        ],
        empty="No exceptions." if status == "all" else f"No {status} exceptions.",
    )
    if page.cursor is not None and not as_json:
        terminal.say(f"There are more than {limit}; see --limit.", style="dim")


@command.command("show")
@click.argument("exception_id", metavar="ID")
@json_option
def show(exception_id: str, as_json: bool) -> None:
    """Show one entry whole: what happened, to what, and what a person can do."""
    terminal = Terminal(as_json)
    entry = _readable(open_ports().exceptions.get(exception_id))
    terminal.document(entry)
    terminal.table(["", ""], [[name, _text(value)] for name, value in entry.items() if value])


@command.command("retry")
@click.argument("exception_ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every open entry that can be retried.")
@json_option
def retry(exception_ids: Sequence[str], everything: bool, as_json: bool) -> int:
    """Try what failed once more; an entry opens again if it fails again."""
    log = open_ports().exceptions
    return _for_each(
        exception_ids, everything, as_json, "retried", lambda key: log.retry(key, by=principal())
    )


@command.command("archive")
@click.argument("exception_ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every open entry.")
@click.option("--reason", default="", help="Kept with the entry.")
@json_option
def archive(exception_ids: Sequence[str], everything: bool, reason: str, as_json: bool) -> int:
    """Mark entries as dealt with."""
    log = open_ports().exceptions
    return _for_each(
        exception_ids,
        everything,
        as_json,
        "archived",
        lambda key: log.archive(key, by=principal(), reason=reason),
    )


def _for_each(
    exception_ids: Sequence[str],
    everything: bool,
    as_json: bool,
    done: str,
    act: Callable[[str], Mapping[str, Any]],
) -> int:
    """Act on each entry, whatever becomes of the others; exit status 1 if one failed."""
    if bool(exception_ids) == everything:
        raise click.UsageError("Name the entries, or give --all.")
    keys = [entry["id"] for entry in _all_open(done)] if everything else exception_ids
    terminal = Terminal(as_json)
    results = []
    for key in keys:
        try:
            act(key)
        except (AxiomError, ValueError) as error:
            results.append({"id": key, "result": "failed", "reason": str(error)})
        else:
            results.append({"id": key, "result": done, "reason": ""})
    terminal.document({"results": results})
    terminal.table(
        ["id", "result", ""],
        [[r["id"], r["result"], r["reason"]] for r in results],
        empty="Nothing to do.",
    )
    return int(any(result["result"] == "failed" for result in results))


def _all_open(done: str) -> list[Mapping[str, Any]]:
    log, entries, cursor = open_ports().exceptions, list[Mapping[str, Any]](), None
    while True:
        page = log.list(where={"status": "open"}, limit=1000, cursor=cursor)
        entries += [document.data for document in page.documents]
        cursor = page.cursor
        if cursor is None:
            break
    # A sender that was refused has its Instance still: nothing here can be tried again.
    return [e for e in entries if done != "retried" or e["retry_topic"]]


def _readable(entry: Mapping[str, Any]) -> dict[str, Any]:
    readable = {name: value for name, value in entry.items() if name not in _MACHINE_FIELDS}
    return {**readable, "can_be_retried": bool(entry["retry_topic"])}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items() if part)
    if isinstance(value, list):
        return "\n".join(_text(part) for part in value)
    if value is True:
        return "yes"
    return str(value)
