"""`axiom config`: the configuration as one document."""

from __future__ import annotations

import json
from pathlib import Path

import click

from infra.local.options import json_option, open_ports, principal
from infra.local.terminal import Terminal


@click.group("config", help="Apply and export the configuration.")
def command() -> None:
    """Works on AXIOM_HOME itself, whether the system runs or not."""


@command.command("apply")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
def apply(path: Path, as_json: bool) -> None:
    """Apply FILE, or all *.yaml, *.yml and *.json files in a folder as one.

    Each part that is named (listeners, destinations, rulesets, settings) replaces what was there;
    parts that are not named stay. If anything is wrong, everything wrong is listed and nothing is
    changed. A running system follows within a second.
    """
    from infra.local.documents import read_configuration

    terminal = Terminal(as_json)
    document = read_configuration(path)
    applied = open_ports(create=True).configuration.apply(document, by=principal())
    terminal.document(applied)
    terminal.table(
        ["part", "now"],
        [[part, ", ".join(_names(value)) or "none"] for part, value in applied.items()],
        title="Applied",
    )


@command.command("export")
@json_option
def export(as_json: bool) -> None:
    """Print the configuration as YAML, or JSON; `config apply` of it changes nothing."""
    exported = open_ports().configuration.export()
    if as_json:
        click.echo(json.dumps(exported, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(exported, sort_keys=False, allow_unicode=True), nl=False)


def _names(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(entity["name"]) for entity in value]
    if isinstance(value, dict):
        return [f"{name}={setting}" for name, setting in value.items()]
    return []
