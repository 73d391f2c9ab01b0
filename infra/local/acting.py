"""What commands that act on entries and Instances have in common: on those named, or by filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal
from infra.local.waiting import waited_for
from shared.errors import AxiomError

if TYPE_CHECKING:
    from shared.client import Client
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
    if dry_run and not by_filter:
        raise click.UsageError("--dry-run counts what --all or --filter means.")
    api = remote()
    if api is None:
        try:
            action.check(open_ports())
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if by_filter:
        filter = _parsed(filters)
        if api is not None:
            return _by_filter_there(api, action, filter, dry_run=dry_run, as_json=as_json)
        return _by_filter(action, filter, dry_run=dry_run, as_json=as_json)
    results = []
    for key in keys:
        reason = _failure(action, key) if api is None else _failure_there(api, action, key)
        result = done if reason is None else "failed"
        results.append({"id": key, "result": result, "reason": reason or ""})
    terminal = Terminal(as_json)
    terminal.document({"results": results})
    terminal.table(["id", "result", "why"], [list(result.values()) for result in results])
    return int(any(result["result"] == "failed" for result in results))


def _failure(action: Action, key: str) -> str | None:
    """Carry it out; in words why not."""
    try:
        action.carry_out(key, by=principal(), ports=open_ports())
    except (AxiomError, ValueError) as error:
        return str(error)
    return None


def _failure_there(api: Client, action: Action, key: str) -> str | None:
    from shared.client import ApiError

    try:
        api.act(action.kind, key, action.name, _details(action))
    except ApiError as error:
        if error.code in ("unauthenticated", "forbidden", "no-api"):
            raise
        return error.detail
    return None


def _by_filter_there(
    api: Client, action: Action, filter: dict[str, str], *, dry_run: bool, as_json: bool
) -> int:
    """As a job of the system there, which is waited for."""
    terminal = Terminal(as_json)
    if dry_run:
        count = api.count(action.kind, action.name, filter, **_details(action))
        return _counted(terminal, action, count)
    job = api.act_on_all(action.kind, action.name, filter, **_details(action))
    ended = waited_for(lambda: api.job(job["id"]), lambda one: one["state"] != "running")
    assert ended is not None
    return _ended(terminal, dict(ended))


def _details(action: Action) -> dict[str, Any]:
    """What is said of the action besides its name."""
    given = {
        "destination": action.destination,
        "with_current_rules": action.with_current_rules,
        "reason": action.reason,
    }
    return {name: value for name, value in given.items() if value}


def _counted(terminal: Terminal, action: Action, count: int) -> int:
    terminal.document({"dry_run": True, "action": action.name, "count": count})
    if not terminal.as_json:
        terminal.say(f"{action.name}: {count}")
    return 0


def _ended(terminal: Terminal, job: dict[str, Any]) -> int:
    terminal.document(job)
    if not terminal.as_json:
        terminal.say(_progress(job))
        failures = [[failure["id"], failure["reason"]] for failure in job["failures"]]
        if failures:
            terminal.table(["id", "reason"], failures, title="Failed")
    return int(job["failed"] > 0)


def _by_filter(action: Action, filter: dict[str, str], *, dry_run: bool, as_json: bool) -> int:
    """As a job that this command itself works on, so that the system need not run."""
    from shared.pipeline import jobs

    ports, terminal = open_ports(), Terminal(as_json)
    try:
        if dry_run:
            return _counted(terminal, action, jobs.preview(action.kind, filter, ports))
        job = jobs.create(action, filter, by=principal(), ports=ports)
    except ValueError as error:
        raise CommandFailedError(str(error), code="bad-filter") from None
    while not jobs.work(job["id"], ports, for_s=2.0):
        terminal.say(_progress(_read(job["id"])), style="dim")
    return _ended(terminal, _read(job["id"]))


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
