"""`axiom keys`: API keys, also for whoever has lost the last one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from infra.local.options import json_option, open_ports, principal
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.identity.directory import Directory
    from shared.identity.keys import ApiKeys, NewKey


@click.group("keys", help="Make, list, rotate and revoke API keys.")
def command() -> None:
    """Works on AXIOM_HOME itself: who can read and write it is an administrator already."""


@command.command("create")
@click.option("--user", default="admin", show_default=True, help="Whose key it is to be.")
@click.option("--role", "roles", multiple=True, help="Good for this role alone; again for more.")
@click.option("--address", "addresses", multiple=True, help="From this network alone.")
@click.option("--days", type=click.IntRange(1, 3650), help="Refused after so many days.")
@click.option("--label", default="", help="For you to tell it from others.")
@json_option
def create(
    user: str,
    roles: tuple[str, ...],
    addresses: tuple[str, ...],
    days: int | None,
    label: str,
    as_json: bool,
) -> None:
    """Make a key and show it, this once.

    A user that is not there is added, with the roles that --role names, or as an admin if it is
    called admin.
    """
    from shared.identity.keys import KeyScope

    directory, keys = _opened()
    if missing := directory.missing_roles(roles):
        raise CommandFailedError(f"there is no role {missing[0]!r}", code="no-role")
    limits = roles if directory.user(user) is not None else ()
    _ensure_user(directory, user, roles)
    expires_at = open_ports().clock.now() + timedelta(days=days) if days else None
    scope = KeyScope(limits or None, addresses, expires_at, label)
    try:
        made = keys.create(user, scope, by=principal())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _show(made, as_json)


@command.command("list")
@click.option("--user", default="", help="Of this user alone.")
@json_option
def list_(user: str, as_json: bool) -> None:
    """List keys, the newest first; their secrets are nowhere.

    The roles of a key that is not limited to some are those of its user.
    """
    terminal = Terminal(as_json)
    directory, keys = _opened()
    page = keys.list(user, limit=500)
    found = [document.data for document in page.documents]
    terminal.document({"keys": found})
    columns = ("id", "user", "label", "roles", "addresses", "expires_at", "last_used_at")
    roles = {user: (directory.user(user) or {}).get("roles") for user in {k["user"] for k in found}}
    shown = [k if k["roles"] is not None else {**k, "roles": roles[k["user"]]} for k in found]
    rows = [
        [", ".join(v) if isinstance(v, list) else v for v in (key[name] for name in columns)]
        for key in shown
    ]
    terminal.table(columns, rows, empty="No keys.")


@command.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--overlap-hours", type=click.FloatRange(0, 720), default=0.0, show_default=True)
@json_option
def rotate(key_id: str, overlap_hours: float, as_json: bool) -> None:
    """Make a key that is good for the same; the old one ends after the overlap."""
    _, keys = _opened()
    _show(keys.rotate(key_id, by=principal(), overlap=timedelta(hours=overlap_hours)), as_json)


@command.command("revoke")
@click.argument("key_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def revoke(key_ids: tuple[str, ...], as_json: bool) -> None:
    """Have keys refused from now on."""
    terminal = Terminal(as_json)
    _, keys = _opened()
    for key_id in key_ids:
        keys.read(key_id)
    for key_id in key_ids:
        keys.revoke(key_id, by=principal())
    terminal.document({"revoked": list(key_ids)})
    if not as_json:
        terminal.say(f"Revoked {', '.join(key_ids)}.")


def _opened() -> tuple[Directory, ApiKeys]:
    from shared.identity.directory import Directory
    from shared.identity.keys import ApiKeys

    ports = open_ports()
    return Directory(ports.documents, ports.clock), ApiKeys(ports.documents, ports.clock)


def _ensure_user(directory: Directory, name: str, roles: tuple[str, ...]) -> None:
    from pydantic import ValidationError

    from shared.identity.directory import User
    from shared.identity.permissions import ADMIN

    if directory.user(name) is not None:
        return
    given = roles or ((ADMIN,) if name == ADMIN else ())
    if not given:
        raise CommandFailedError(
            f"there is no user {name!r}",
            hint="Name the roles that the new user is to have with --role.",
            code="no-user",
        )
    try:
        user = User(name=name, roles=given)
    except ValidationError:
        raise click.UsageError("a user's name has letters, digits and _.- alone") from None
    directory.create_user(user, by=principal())


def _show(made: NewKey, as_json: bool) -> None:
    terminal = Terminal(as_json)
    terminal.document({"id": made.key_id, "key": made.text})
    if not as_json:
        terminal.say(made.text)
        terminal.say(f"Key {made.key_id}; it is shown this once: keep it.", style="dim")
