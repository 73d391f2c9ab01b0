"""`axiom config`: the configuration as one document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import json_option, open_ports, principal, remote
from infra.local.terminal import Terminal

if TYPE_CHECKING:
    from shared.config.history import ConfigurationHistory


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check all of it, and change nothing."
)
reason_option = click.option(
    "--reason", default="", help="Why; kept with the version that comes of it."
)


@click.group("config", help="Apply and export the configuration; compare and restore versions.")
def command() -> None:
    """Of AXIOM_HOME, whether the system runs or not, or of the system at --url."""


@command.command("apply")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@reason_option
@dry_run_option
@json_option
def apply(path: Path, reason: str, dry_run: bool, as_json: bool) -> None:
    """Apply FILE, or all *.yaml, *.yml and *.json files in a folder as one.

    Each part that is named (listeners, destinations, rulesets, settings) replaces what was there;
    parts that are not named stay. A FILE that is one ruleset by itself replaces the ruleset of its
    name, or is added. If anything is wrong, everything wrong is listed and nothing is
    changed. A running system follows within a second. A secret that is named and not there is
    told, and no fault: it may come later.
    """
    from infra.local.documents import is_ruleset, read_configuration

    terminal = Terminal(as_json)
    document = read_configuration(path)
    before: dict[str, Any] = {}
    if is_ruleset(document):
        applied: dict[str, Any] = {"rulesets": [_put_ruleset(document, reason, dry_run)]}
    elif (api := remote()) is not None:
        before = api.configuration()
        applied = dict(api.apply(document, reason=reason, dry_run=dry_run))
    else:
        service = open_ports(create=True).configuration
        before = service.export()
        applied = service.apply(document, by=principal(), reason=reason, dry_run=dry_run)
    terminal.document(applied)
    terminal.table(
        ["part", "now", "taken away"],
        [
            [
                part,
                ", ".join(_names(value)) or "none",
                ", ".join(_taken_away(before.get(part), value)),
            ]
            for part, value in applied.items()
        ],
        title="It would be applied" if dry_run else "Applied",
    )
    if not dry_run:
        _tell_missing_secrets(terminal)


@command.command("export")
@json_option
def export(as_json: bool) -> None:
    """Print the configuration as YAML, or JSON; `config apply` of it changes nothing."""
    api = remote()
    exported = open_ports().configuration.export() if api is None else api.configuration()
    if as_json:
        click.echo(json.dumps(exported, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(exported, sort_keys=False, allow_unicode=True), nl=False)


@command.command("versions")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@json_option
def versions(limit: int, as_json: bool) -> None:
    """List the versions of the configuration, newest first: who, when, why."""
    terminal = Terminal(as_json)
    api = remote()
    found: list[Mapping[str, Any]] = (
        [version.as_json() for version in _history().versions(limit=limit)]
        if api is None
        else list(api.versions(limit=limit).items)
    )
    terminal.document({"versions": found})
    terminal.table(
        ["version", "at", "by", "why"],
        [[v["version"], v["at"][:19].replace("T", " "), v["by"], v["reason"]] for v in found],
        empty="No versions.",
    )


@command.command("diff")
@click.argument("first", type=click.IntRange(0), metavar="VERSION")
@click.argument("second", type=click.IntRange(0), required=False, metavar="[VERSION]")
@json_option
def diff(first: int, second: int | None, as_json: bool) -> None:
    """Show what a VERSION changed, or what differs from the first to the second."""
    before, after = (first - 1, first) if second is None else (first, second)
    if (api := remote()) is not None:
        told = dict(api.version_diff(after, before))
        text = told.pop("unified_diff")
        Terminal(as_json).document(told)
        if not as_json:
            click.echo(text, nl=False)
        return
    history = _history()
    if after:
        history.version(after)
    if as_json:
        found = history.differences(before, after)
        document = {"from": before, "to": after, "differences": [one.as_json() for one in found]}
        Terminal(as_json).document(document)
        return
    click.echo(history.unified_diff(before, after), nl=False)


@command.command("roll-back")
@click.argument("version", type=click.IntRange(1))
@click.option("--ruleset", default="", metavar="NAME", help="Only this one goes back.")
@reason_option
@dry_run_option
@json_option
def roll_back(version: int, ruleset: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Make VERSION current again, as a new version. It is checked as any change is.

    With --ruleset only that one is as it was then, or goes if it was not there.
    """
    terminal = Terminal(as_json)
    newest: Mapping[str, Any]
    if (api := remote()) is not None:
        rolled = api.roll_back(version, ruleset=ruleset, reason=reason, dry_run=dry_run)
        newest = {name: value for name, value in rolled.items() if name != "configuration"}
    else:
        history = _history()
        history.roll_back(version, by=principal(), ruleset=ruleset, reason=reason, dry_run=dry_run)
        newest = history.versions(limit=1)[0].as_json()
    terminal.document(newest)
    what = f"{ruleset} in version" if ruleset else "version"
    if dry_run:
        terminal.say(f"{what} {newest['version']} can be made as in version {version}")
        return
    terminal.say(f"{what} {newest['version']} is as in version {version}")
    _tell_missing_secrets(terminal)


def _put_ruleset(document: Mapping[str, Any], reason: str, dry_run: bool) -> Mapping[str, Any]:
    """Replace the ruleset of that name, or add it."""
    api = remote()
    if api is None:
        service = open_ports(create=True).configuration
        return service.put("rulesets", document, by=principal(), reason=reason, dry_run=dry_run)
    name = str(document.get("name", ""))
    if name in {one["name"] for one in api.entities("rulesets")}:
        return api.replace("rulesets", name, document, reason=reason, dry_run=dry_run)
    return api.create("rulesets", document, reason=reason, dry_run=dry_run)


def _tell_missing_secrets(terminal: Terminal) -> None:
    api = remote()
    missing: Iterable[Mapping[str, Any]] = (
        [one.as_json() for one in open_ports().configuration.missing_secrets()]
        if api is None
        else api.missing_secrets()
    )
    for one in missing:
        terminal.say(
            f"warning: {one['path']} names the secret {one['name']}, which is not there",
            style="yellow",
        )


def _history() -> ConfigurationHistory:
    from shared.config.history import ConfigurationHistory

    ports = open_ports()
    return ConfigurationHistory(ports.objects, ports.documents, ports.configuration)


def _taken_away(before: object, now: object) -> list[str]:
    """Names of the entities that are no more, and of settings that are as by default again."""
    kept = _keys(now)
    return [name for name in _keys(before) if name not in kept]


def _keys(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, dict) else _names(value)


def _names(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(entity["name"]) for entity in value]
    if isinstance(value, dict):
        return [f"{name}={setting}" for name, setting in value.items()]
    return []
