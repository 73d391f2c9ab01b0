"""What commands that act on entries and Instances have in common: on those named, or by filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import json_option, open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal
from infra.local.waiting import waited_for
from shared.errors import AxiomError

if TYPE_CHECKING:
    from shared.client import Client
    from shared.pipeline.jobs import Action


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a command is to act on, those named or all that fit, and how it tells of it."""

    keys: tuple[str, ...]
    everything: bool
    filters: tuple[str, ...]
    dry_run: bool
    as_json: bool


def choosing(metavar: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Has a command take what it is to act on, which it gets as a `Chosen` before its own options;
    `metavar` is what one of those named is called.
    """
    taken = (
        click.argument("keys", metavar=f"{metavar}...", nargs=-1),
        click.option(
            "--all",
            "everything",
            is_flag=True,
            help="All that wait, unless --filter says otherwise.",
        ),
        click.option(
            "--filter",
            "filters",
            metavar="NAME=VALUE",
            multiple=True,
            help="Of all, those that fit; as the API's list takes it. May be given again.",
        ),
        click.option(
            "--dry-run", is_flag=True, help="Count what --all or --filter means, and do nothing."
        ),
        json_option,
    )

    def choose(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def chosen(**given: Any) -> int:
            own = {name: given.pop(name) for name in set(given) - _OF_CHOSEN}
            return command(Chosen(**given), **own)

        for parameter in reversed(taken):
            parameter(chosen)
        return chosen

    return choose


_OF_CHOSEN = frozenset(field.name for field in fields(Chosen))


def act(action: Action, chosen: Chosen, *, done: str) -> int:
    """Carry out the action on what was chosen; exit status 1 if one failed."""
    by_filter = chosen.everything or bool(chosen.filters)
    if bool(chosen.keys) == by_filter:
        raise click.UsageError("Name what is meant, or give --all or --filter.")
    if chosen.dry_run and not by_filter:
        raise click.UsageError("--dry-run counts what --all or --filter means.")
    api = remote()
    if api is None:
        try:
            action.check(open_ports())
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    terminal = Terminal(chosen.as_json)
    if by_filter:
        filter = _parsed(chosen.filters)
        if api is not None:
            return _by_filter_there(api, action, filter, terminal, dry_run=chosen.dry_run)
        return _by_filter(action, filter, terminal, dry_run=chosen.dry_run)
    results = []
    for key in chosen.keys:
        reason = _failure(action, key) if api is None else _failure_there(api, action, key)
        result = done if reason is None else "failed"
        results.append({"id": key, "result": result, "reason": reason or ""})
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
    api: Client, action: Action, filter: dict[str, str], terminal: Terminal, *, dry_run: bool
) -> int:
    """As a job of the system there, which is waited for."""
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


def _by_filter(action: Action, filter: dict[str, str], terminal: Terminal, *, dry_run: bool) -> int:
    """As a job that this command itself works on, so that the system need not run."""
    from shared.pipeline import jobs

    ports = open_ports()
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
