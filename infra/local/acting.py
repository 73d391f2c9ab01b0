"""What commands that act on entries and Instances have in common: on those named, or by filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import open_ports, principal
from infra.local.terminal import CommandFailedError, Terminal
from shared.errors import AxiomError

if TYPE_CHECKING:
    from shared.pipeline.jobs import Action

all_option = click.option(
    "--all", "everything", is_flag=True, help="All that wait, unless --filter says otherwise."
)
filter_option = click.option(
    "--filter",
    "filters",
    metavar="NAME=VALUE",
    multiple=True,
    help="Of all, those that fit; as the API's list takes it. May be given again.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Count what --all or --filter means, and do nothing."
)


def act(
    action: Action,
    keys: Sequence[str],
    *,
    everything: bool,
    filters: Sequence[str],
    dry_run: bool,
    done: str,
    as_json: bool,
) -> int:
    """Carry out the action on the named ones, or on all that fit; exit status 1 if one failed."""
    by_filter = everything or bool(filters)
    if bool(keys) == by_filter:
        raise click.UsageError("Name what is meant, or give --all or --filter.")
    ports = open_ports()
    try:
        action.check(ports)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if by_filter:
        return _by_filter(action, _parsed(filters), dry_run=dry_run, as_json=as_json)
    if dry_run:
        raise click.UsageError("--dry-run counts what --all or --filter means.")
    results = []
    for key in keys:
        try:
            action.carry_out(key, by=principal(), ports=ports)
        except (AxiomError, ValueError) as error:
            results.append({"id": key, "result": "failed", "reason": str(error)})
        else:
            results.append({"id": key, "result": done, "reason": ""})
    terminal = Terminal(as_json)
    terminal.document({"results": results})
    terminal.table(["id", "result", ""], [list(result.values()) for result in results])
    return int(any(result["result"] == "failed" for result in results))


def _by_filter(action: Action, filter: dict[str, str], *, dry_run: bool, as_json: bool) -> int:
    """As a job that this command itself works on, so that the system need not run."""
    from shared.pipeline import jobs

    ports, terminal = open_ports(), Terminal(as_json)
    try:
        if dry_run:
            count = jobs.preview(action.kind, filter, ports)
            terminal.document({"dry_run": True, "action": action.name, "count": count})
            if not as_json:
                terminal.say(f"{action.name}: {count}")
            return 0
        job = jobs.create(action, filter, by=principal(), ports=ports)
    except ValueError as error:
        raise CommandFailedError(str(error), code="bad-filter") from None
    while not jobs.work(job["id"], ports, for_s=2.0):
        terminal.say(_progress(_read(job["id"])), style="dim")
    ended = _read(job["id"])
    terminal.document(ended)
    if not as_json:
        terminal.say(_progress(ended))
        failures = [[failure["id"], failure["reason"]] for failure in ended["failures"]]
        if failures:
            terminal.table(["id", "reason"], failures, title="Failed")
    return int(ended["failed"] > 0)


def _read(job_id: str) -> dict[str, Any]:
    from shared.pipeline import jobs

    found = open_ports().documents.get(jobs.COLLECTION, job_id)
    return dict(found.data) if found else {}


def _progress(job: dict[str, Any]) -> str:
    counts = ", ".join(f"{job[name]} {name}" for name in ("done", "failed", "skipped"))
    return f"{job['action']}: {counts} of {job['total']}"


def _parsed(filters: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in filters]
    if wrong := [text for text, (_, sign, _) in zip(filters, pairs, strict=True) if not sign]:
        raise click.UsageError(f"--filter takes NAME=VALUE, not {wrong[0]!r}.")
    return {name.strip(): value for name, _, value in pairs}
