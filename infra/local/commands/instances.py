"""`axiom instances`: what was received, what was decided, where it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from infra.local.acting import Chosen, act, choosing
from infra.local.options import json_option, open_ports, remote
from infra.local.records import Record, find_records, record_of
from infra.local.terminal import CommandFailedError, Terminal

STATES = ("routed", "collecting", "held", "discarded", "released", "quarantined")

_MOST_ENTRIES = 20


@click.group("instances", help="What was received, where it went, and what waits for a person.")
def command() -> None:
    """Of AXIOM_HOME, whether the system runs or not, or of the system at --url."""


@command.command("list")
@click.option("--state", type=click.Choice(STATES))
@click.option("--study", metavar="UID", help="Only of this Study Instance UID.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--cursor", metavar="CURSOR", help="Go on after the page that ended with it.")
@json_option
def list_(
    state: str | None, study: str | None, limit: int, cursor: str | None, as_json: bool
) -> None:
    """List received Instances, newest first."""
    terminal = Terminal(as_json)
    asked = _here if remote() is None else _there
    found, following = asked(state or "", study or "", limit, cursor)
    terminal.document({"instances": [one for one, _ in found], "next_cursor": following})
    terminal.table(
        ["receipt", "received", "state", "SOP Instance UID", "from", "rules", "destinations"],
        [
            [
                instance["receipt_id"],
                instance["received_at"][:19].replace("T", " "),
                instance["state"],
                instance["sop_instance_uid"],
                source_of(instance),
                ", ".join(instance["matched_rules"]),
                went,
            ]
            for instance, went in found
        ],
        empty="No Instances.",
    )
    if following is not None and not as_json:
        terminal.say(f"There are more; go on with --cursor {following}", style="dim")


# Instances with, in words, where they went; and the cursor of the rest.
_Listed = tuple[list[tuple[Mapping[str, Any], str]], str | None]


def _here(state: str, study: str, limit: int, cursor: str | None) -> _Listed:
    where = {"state": state, "study_instance_uid": study}
    try:
        records, following = find_records(open_ports(), where, limit=limit, cursor=cursor)
    except ValueError:
        raise click.BadParameter("it is none that this list gave", param_hint="--cursor") from None
    return [
        (
            record.as_json(),
            ", ".join(f"{name}: {record.state_of(name)}" for name in record.destinations),
        )
        for record in records
    ], following


def _there(state: str, study: str, limit: int, cursor: str | None) -> _Listed:
    api = remote()
    assert api is not None
    page = api.instances(limit=limit, cursor=cursor, state=state, study_uid=study)
    return [(one, ", ".join(one["destinations"])) for one in page.items], page.next_cursor


@command.command("show")
@click.argument("identifier", metavar="RECEIPT|UID")
@json_option
def show(identifier: str, as_json: bool) -> None:
    """Show one Instance: by receipt, or the newest with this SOP Instance UID.

    Of one that nothing was decided about, or that a rule rejected: its entries of the exception
    log.
    """
    terminal = Terminal(as_json)
    record = _found_here(identifier) if remote() is None else _found_there(identifier)
    if record is None and (entries := _entries_of(identifier)):
        _print_undecided(terminal, entries)
        return
    if record is None:
        raise CommandFailedError(
            f"no Instance {identifier}",
            hint="`axiom instances list` shows those that rules have decided about.",
            code="not-found",
        )
    terminal.document(record.as_json())
    if not as_json:
        _print(terminal, record)


@command.command("release")
@choosing("RECEIPT")
def release(chosen: Chosen) -> int:
    """Have the current rules decide anew about Instances that are held or quarantined."""
    from shared.pipeline.jobs import Action

    return act(Action("instances", "release"), chosen, done="released")


@command.command("reroute")
@click.option("--destination", metavar="NAME", required=True)
@choosing("RECEIPT")
def reroute(chosen: Chosen, destination: str) -> int:
    """Send Instances that are held or quarantined to another destination."""
    from shared.pipeline.jobs import Action

    return act(Action("instances", "reroute", destination), chosen, done="rerouted")


@command.command("discard")
@click.option("--reason", required=True, help="Kept with the Instance and in the audit log.")
@choosing("RECEIPT")
def discard(chosen: Chosen, reason: str) -> int:
    """Give up for good Instances that are held or quarantined."""
    from shared.pipeline.jobs import Action

    return act(Action("instances", "discard", reason=reason), chosen, done="discarded")


def _found_here(identifier: str) -> Record | None:
    ports = open_ports()
    record = record_of(ports, identifier)
    if record is None:
        found, _ = find_records(ports, {"sop_instance_uid": identifier}, limit=1)
        record = found[0] if found else None
    return record


def _found_there(identifier: str) -> Record | None:
    from shared.client import ApiError

    api = remote()
    assert api is not None
    listed = api.instances(limit=1, sop_instance_uid=identifier).items
    try:
        found: Mapping[str, Any] = api.instance(listed[0]["receipt_id"] if listed else identifier)
    except ApiError as error:
        if error.code == "document-missing":
            return None
        raise
    # One that only its exceptions tell of has not been decided about.
    if "deliveries" not in found:
        return None
    return Record(found, {d["destination"]: d for d in found["deliveries"] if "attempts" in d})


def _entries_of(receipt_id: str) -> list[Mapping[str, Any]]:
    api = remote()
    if api is not None:
        return list(api.exceptions(limit=_MOST_ENTRIES, receipt_id=receipt_id).items)
    log = open_ports().exceptions
    page = log.list(where={"receipt_id": receipt_id}, limit=_MOST_ENTRIES)
    return [document.data for document in page.documents]


def _print_undecided(terminal: Terminal, entries: list[Mapping[str, Any]]) -> None:
    shown = ("id", "last_at", "status", "stage", "code", "message", "hint")
    rows = [{name: entry[name] for name in shown} for entry in entries]
    receipt_id = entries[0]["receipt_id"]
    terminal.document({"receipt_id": receipt_id, "state": "undecided", "exceptions": rows})
    if not terminal.as_json:
        terminal.table(
            ["", ""],
            [["receipt id", receipt_id], ["state", "undecided: see the exception log"]]
            + [[name.replace("_", " "), row[name]] for row in rows for name in shown],
        )


def source_of(instance: Mapping[str, Any]) -> str:
    """Where an Instance came from, in short."""
    source = instance["source"]
    return str(source["calling_ae_title"] or source["principal"] or source["type"])


def _print(terminal: Terminal, record: Record) -> None:
    instance = record.instance
    shown = (
        "receipt_id",
        "received_at",
        "state",
        "reason",
        "sop_class_uid",
        "sop_instance_uid",
        "series_instance_uid",
        "study_instance_uid",
        "transfer_syntax_uid",
    )
    rows = [[name.replace("_", " "), instance[name]] for name in shown if instance[name]]
    rows.append(["from", source_of(instance)])
    rows.append(["bytes", instance["file"]["size"]])
    rows.append(["received file", instance["file"]["object_name"]])
    rows += [["rule", rule] for rule in instance["matched_rules"]]
    rows += [["warning", warning] for warning in instance["warnings"]]
    rows += [
        [f"transfer syntax for {name}", wanted["transfer_syntax_uid"]]
        for name in record.destinations
        if (wanted := record.transcoding(name))
    ]
    terminal.table(["", ""], rows)
    terminal.table(
        ["destination", "state", "ms", "attempts", "answer"],
        [
            [
                name,
                record.state_of(name),
                *(
                    [d["since_received_ms"], d["attempts"], d.get("answer") or d.get("error")]
                    if (d := record.delivery(name))
                    else ["", "", ""]
                ),
            ]
            for name in record.destinations
        ],
        title="Deliveries",
        empty="No deliveries.",
    )
    for name in record.left_at:
        terminal.say(
            f"{name} has it by an earlier decision, as it was then, and is sent nothing now"
        )
    terminal.table(
        ["destination", "Attribute", "old", "new", "by"],
        [
            [
                name,
                change["path"],
                _values(change, "old"),
                _values(change, "new"),
                change["by"],
            ]
            for name, changes in record.changes.items()
            for change in changes
        ],
        title="Changes",
        empty="No changes.",
    )


def _values(change: Mapping[str, Any], which: str) -> str:
    if which not in change:
        return "(not shown)"  # the key has no patients:read
    values: list[str] | None = change[which]
    return "(absent)" if values is None else "\\".join(values)
