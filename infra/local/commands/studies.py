"""`axiom studies`: what came of a Study; what rules wait for, and what they decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from infra.local.options import json_option, open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal
from shared.pipeline import studies, timelines


@click.group("studies", help="List and show what waits for its Study, and end the waiting.")
def command() -> None:
    """Of AXIOM_HOME, whether the system runs or not, or of the system at --url."""


@command.command("list")
@click.option("--state", type=click.Choice(studies.STATES))
@click.option("--study", metavar="UID", help="Only of this Study Instance UID.")
@click.option("--rule", metavar="RULESET/RULE")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--cursor", metavar="CURSOR", help="Go on after the page that ended with it.")
@json_option
def list_(
    state: str | None,
    study: str | None,
    rule: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List Studies and Series that study and series rules collect, newest first: one line for each
    rule.
    """
    terminal = Terminal(as_json)
    entries: list[Mapping[str, Any]]
    if (api := remote()) is not None:
        there = api.studies(
            limit=limit, cursor=cursor, state=state or "", study_uid=study or "", rule=rule or ""
        )
        entries, following = list(there.items), there.next_cursor
    else:
        documents = open_ports().documents
        where = {"state": state or "", "study_instance_uid": study or "", "rule": rule or ""}
        try:
            page = studies.find(documents, where=where, limit=limit, cursor=cursor)
        except ValueError:
            said = "it is none that this list gave"
            raise click.BadParameter(said, param_hint="--cursor") from None
        entries = [studies.shown(documents, document.data) for document in page.documents]
        following = page.cursor
    more = following is not None
    terminal.document({"studies": entries, "more": more, "next_cursor": following})
    _print(terminal, entries)
    if more and not as_json:
        terminal.say(f"There are more; go on with --cursor {following}", style="dim")


@command.command("show")
@click.argument("study_instance_uid", metavar="UID")
@json_option
def show(study_instance_uid: str, as_json: bool) -> None:
    """Show one Study whole: what came, what happened to each Instance, how far each rule is."""
    terminal = Terminal(as_json)
    api = remote()
    study: Mapping[str, Any] = (
        timelines.study(study_instance_uid, open_ports().documents)
        if api is None
        else api.study(study_instance_uid)
    )
    instances: list[Mapping[str, Any]] = list(
        timelines.instances(study_instance_uid, open_ports().documents)
        if api is None
        else api.study_instances(study_instance_uid)
    )
    terminal.document({**study, "timelines": instances})
    terminal.table(
        ["Instance", "at", "step", ""],
        [
            [
                "" if i else instance["sop_instance_uid"],
                step["at"][:19].replace("T", " "),
                step["step"],
                _details(step),
            ]
            for instance in instances
            for i, step in enumerate(instance["timeline"])
        ],
        title=f"{study['instances']} Instances, {study['exceptions']} exceptions",
    )
    for entry in study["rules"]:
        rows = [[name.replace("_", " "), value] for name, value in entry.items() if _says(value)]
        terminal.table(["", ""], rows, title=entry["rule"])


@command.command("complete")
@click.argument("study_instance_uid", metavar="UID")
@click.option("--rule", metavar="RULESET/RULE", default="", help="For this rule alone.")
@json_option
def complete(study_instance_uid: str, rule: str, as_json: bool) -> None:
    """Have a Study count as complete; one that was held or discarded is decided anew."""
    terminal = Terminal(as_json)
    entries: list[Mapping[str, Any]]
    if (api := remote()) is not None:
        entries = list(api.complete_study(study_instance_uid, rule)["rules"])
        terminal.document({"study_instance_uid": study_instance_uid, "rules": entries})
        _print(terminal, entries)
        return
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


def _print(terminal: Terminal, entries: list[Mapping[str, Any]]) -> None:
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
        empty="No study or series rule has such a Study; `axiom instances list` shows what came.",
    )


def _decided(entry: Mapping[str, Any]) -> str:
    if entry["state"] == studies.COLLECTING:
        return "soon" if entry["forced_by"] else ""
    return str(entry["verdict"]) if entry["matched"] else "not this rule's"


def _details(step: Mapping[str, Any]) -> str:
    said = {name: value for name, value in step.items() if name not in ("at", "step") and value}
    return ", ".join(
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in said.items()
    )


def _says(value: object) -> bool:
    return value is not None and value != ""
