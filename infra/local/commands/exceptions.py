"""`axiom exceptions`: what could not be done, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from infra.local.acting import Chosen, act, choosing
from infra.local.addresses import read_addresses
from infra.local.options import Moment, json_option, open_ports, read_environment, remote
from infra.local.terminal import Terminal

if TYPE_CHECKING:
    from shared.ports import Page

STATUSES = ("open", "retried", "archived", "discarded")
CATEGORIES = ("validation", "processing", "storage", "network", "resource", "configuration")

_SEARCH_PAGE = 500
# What a retry needs is no reading matter.
_MACHINE_FIELDS = frozenset({"retry_message", "can_retry"})


@click.group("exceptions", help="Work off what could not be done.")
def command() -> None:
    """Works on AXIOM_HOME itself, whether the system runs or not."""


@command.command("list")
@click.option("--status", type=click.Choice((*STATUSES, "all")), default="open", show_default=True)
@click.option("--category", type=click.Choice(CATEGORIES))
@click.option("--destination", metavar="NAME")
@click.option("--study", metavar="UID", help="Only of this Study Instance UID.")
@click.option("--stage", metavar="NAME", help="Only of this stage, as an entry names it.")
@click.option("--since", type=Moment(), help="Only what happened since.")
@click.option("--search", metavar="TEXT", default="", help="Only where a field holds this text.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--cursor", metavar="CURSOR", help="Go on after the page that ended with it.")
@json_option
def list_(
    status: str,
    category: str | None,
    destination: str | None,
    study: str | None,
    stage: str | None,
    since: datetime | None,
    search: str,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List the entries, newest first."""
    terminal = Terminal(as_json)
    where = {
        "status": "" if status == "all" else status,
        "category": category or "",
        "destination": destination or "",
        "study_instance_uid": study or "",
        "stage": stage or "",
    }
    asked = _there if remote() is not None else _here
    found, following = asked(where, since, search, limit, cursor)
    entries = [_readable(entry) for entry in found]
    more = following is not None
    terminal.document({"exceptions": entries, "more": more, "next_cursor": following})
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
    if more and not as_json:
        terminal.say(f"There are more; go on with --cursor {following}", style="dim")


def _here(
    where: Mapping[str, str], since: datetime | None, search: str, limit: int, cursor: str | None
) -> tuple[list[Mapping[str, Any]], str | None]:
    log = open_ports().exceptions

    def entries_of(limit: int, cursor: str | None) -> Page:
        return log.list(where=where, since=since, limit=limit, cursor=cursor)

    try:
        page = _found(search, entries_of, limit, cursor) if search else entries_of(limit, cursor)
    except ValueError:
        raise click.BadParameter("it is none that this list gave", param_hint="--cursor") from None
    return [document.data for document in page.documents], page.cursor


def _there(
    where: Mapping[str, str], since: datetime | None, search: str, limit: int, cursor: str | None
) -> tuple[list[Mapping[str, Any]], str | None]:
    api = remote()
    assert api is not None
    asked = {("study_uid" if k == "study_instance_uid" else k): v for k, v in where.items()}
    asked |= {"q": search, "since": since.isoformat() if since else ""}
    found = api.exceptions(limit=min(limit, _SEARCH_PAGE), cursor=cursor, **asked)
    return list(found.items), found.next_cursor


def _found(
    wanted: str, entries_of: Callable[[int, str | None], Page], limit: int, cursor: str | None
) -> Page:
    """The entries that hold the text, case aside; the cursor stands behind the last of them."""
    from shared.pipeline.exceptions import words_of
    from shared.ports import Page

    needle = wanted.casefold()
    found = []
    while True:
        page = entries_of(_SEARCH_PAGE, cursor)
        for position, document in enumerate(page.documents, start=1):
            if any(needle in word.casefold() for word in words_of(document.data)):
                found.append(document)
                if len(found) == limit:
                    return Page(found, entries_of(position, cursor).cursor)
        cursor = page.cursor
        if cursor is None:
            return Page(found, None)


@command.command("show")
@click.argument("exception_id", metavar="ID")
@json_option
def show(exception_id: str, as_json: bool) -> None:
    """Show one entry whole: what happened, to what, and what a person can do."""
    terminal = Terminal(as_json)
    api = remote()
    entry = _readable(
        open_ports().exceptions.get(exception_id) if api is None else api.exception(exception_id)
    )
    terminal.document(entry)
    terminal.table(["", ""], [[name, _text(value)] for name, value in entry.items() if value])


@command.command("retry")
@click.option("--destination", metavar="NAME", default="", help="Deliver there instead.")
@click.option(
    "--with-current-rules", is_flag=True, help="Have the current rules decide about it anew."
)
@choosing("ID")
def retry(chosen: Chosen, destination: str, with_current_rules: bool) -> int:
    """Try what failed once more; an entry opens again if it fails again."""
    from shared.pipeline.jobs import Action

    status = act(
        Action("exceptions", "retry", destination, with_current_rules), chosen, done="retried"
    )
    if not (status or chosen.dry_run or chosen.as_json) and remote() is None:
        home = read_environment().home
        if read_addresses(home) is None:
            Terminal(chosen.as_json).say(
                f"No system runs on {home}: what is retried waits until one does."
            )
    return status


@command.command("archive")
@click.option("--reason", default="", help="Kept with the entry.")
@choosing("ID")
def archive(chosen: Chosen, reason: str) -> int:
    """Mark entries as dealt with; nothing else happens."""
    from shared.pipeline.jobs import Action

    return act(Action("exceptions", "archive", reason=reason), chosen, done="archived")


@command.command("discard")
@click.option("--reason", required=True, help="Kept with the entry and in the audit log.")
@choosing("ID")
def discard(chosen: Chosen, reason: str) -> int:
    """Give up for good what failed: it is not delivered, and its received file may go."""
    from shared.pipeline.jobs import Action

    return act(Action("exceptions", "discard", reason=reason), chosen, done="discarded")


def _readable(entry: Mapping[str, Any]) -> dict[str, Any]:
    readable = {name: value for name, value in entry.items() if name not in _MACHINE_FIELDS}
    # The API names it otherwise, and not the topic.
    return {**readable, "can_be_retried": bool(entry.get("retry_topic", entry.get("can_retry")))}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items() if part)
    if isinstance(value, list):
        return "\n".join(_text(part) for part in value)
    if value is True:
        return "yes"
    return str(value)
