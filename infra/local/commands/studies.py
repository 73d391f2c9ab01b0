"""`axiom studies`: what study and series rules wait for, and what they decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from infra.local.options import json_option, open_ports, principal
from infra.local.terminal import CommandFailedError, Terminal
from shared.pipeline import studies


@click.group("studies", help="List and show what waits for its Study, and end the waiting.")
def command() -> None:
    """Works on AXIOM_HOME itself, whether the system runs or not."""


@command.command("list")
@click.option("--state", type=click.Choice(studies.STATES))
@click.option("--study", metavar="UID", help="Only of this Study Instance UID.")
@click.option("--rule", metavar="RULESET/RULE")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
def list_(
    state: str | None, study: str | None, rule: str | None, limit: int, as_json: bool
) -> None:
    """List Studies and Series, newest first: one line for each rule that wants them."""
    terminal = Terminal(as_json)
    documents = open_ports().documents
    where = {"state": state or "", "study_instance_uid": study or "", "rule": rule or ""}
    page = studies.find(documents, where=where, limit=limit)
    entries = [studies.shown(documents, document.data) for document in page.documents]
    terminal.document({"studies": entries, "more": page.cursor is not None})
    _print(terminal, entries)


@command.command("show")
@click.argument("study_instance_uid", metavar="UID")
@json_option
def show(study_instance_uid: str, as_json: bool) -> None:
    """Show one Study whole: how far each rule is with it, and why."""
    terminal = Terminal(as_json)
    documents = open_ports().documents
    found = studies.of_study(documents, study_instance_uid)
    entries = [studies.shown(documents, document.data) for document in found]
    terminal.document({"study_instance_uid": study_instance_uid, "rules": entries})
    for entry in entries:
        rows = [[name.replace("_", " "), value] for name, value in entry.items() if _says(value)]
        terminal.table(["", ""], rows, title=entry["rule"])


@command.command("complete")
@click.argument("study_instance_uid", metavar="UID")
@click.option("--rule", metavar="RULESET/RULE", default="", help="For this rule alone.")
@json_option
def complete(study_instance_uid: str, rule: str, as_json: bool) -> None:
    """Have a Study count as complete; one that was held or discarded is decided anew."""
    terminal = Terminal(as_json)
    ports = open_ports()
    try:
        changed = studies.complete(
            ports.documents, ports.clock, study_instance_uid, by=principal(), rule=rule
        )
    except studies.StudyDecidedError as error:
        raise CommandFailedError(
            str(error),
            hint="`axiom instances` has single Instances decided anew.",
            code="already-complete",
        ) from None
    entries = [studies.shown(ports.documents, study) for study in changed]
    terminal.document({"study_instance_uid": study_instance_uid, "rules": entries})
    _print(terminal, entries)


def _print(terminal: Terminal, entries: list[dict[str, Any]]) -> None:
    terminal.table(
        ["Study Instance UID", "rule", "state", "since", "Instances", "late", "decided"],
        [
            [
                entry["study_instance_uid"],
                entry["rule"],
                entry["state"],
                entry["opened_at"][:19].replace("T", " "),
                entry["instances"],
                entry["late"],
                _decided(entry),
            ]
            for entry in entries
        ],
        empty="No Studies.",
    )


def _decided(entry: Mapping[str, Any]) -> str:
    if entry["state"] == studies.COLLECTING:
        return "soon" if entry["forced_by"] else ""
    return str(entry["verdict"]) if entry["matched"] else "not this rule's"


def _says(value: object) -> bool:
    return value is not None and value != ""
