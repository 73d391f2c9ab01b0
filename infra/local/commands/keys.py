"""`axiom keys`: API keys, also for whoever has lost the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import json_option, open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.client import Client
    from shared.client.documents import NewKey
    from shared.identity.directory import Directory
    from shared.identity.keys import ApiKeys


@click.group("keys", help="Make, list, rotate and revoke API keys.")
def command() -> None:
    """Of AXIOM_HOME, whose every reader and writer is an administrator already, or at --url."""


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

    if (api := remote()) is not None:
        _show(_created_there(api, user, roles, addresses, days, label), as_json)
        return
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
    _show({"id": made.key_id, "key": made.text}, as_json)


@command.command("list")
@click.option("--user", default="", help="Of this user alone.")
@json_option
def list_(user: str, as_json: bool) -> None:
    """List keys, the newest first; their secrets are nowhere.

    The roles of a key that is not limited to some are those of its user.
    """
    terminal = Terminal(as_json)
    found: list[Mapping[str, Any]]
    if (api := remote()) is not None:
        users = {one["name"]: one for one in api.users()}
        found = [key for name in ([user] if user else users) for key in api.keys(name)]
        roles = {name: one["roles"] for name, one in users.items()}
    else:
        directory, keys = _opened()
        page = keys.list(user, limit=500)
        found = [document.data for document in page.documents]
        owners = {key["user"] for key in found}
        roles = {owner: (directory.user(owner) or {}).get("roles") for owner in owners}
    terminal.document({"keys": found})
    columns = ("id", "user", "label", "roles", "addresses", "expires_at", "last_used_at")
    shown = [k if k["roles"] is not None else {**k, "roles": roles.get(k["user"])} for k in found]
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
    if (api := remote()) is not None:
        owner = _owner(api, key_id)
        _show(api.rotate_key(key_id, owner, overlap_s=3600 * overlap_hours), as_json)
        return
    _, keys = _opened()
    made = keys.rotate(key_id, by=principal(), overlap=timedelta(hours=overlap_hours))
    _show({"id": made.key_id, "key": made.text}, as_json)


@command.command("revoke")
@click.argument("key_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def revoke(key_ids: tuple[str, ...], as_json: bool) -> None:
    """Have keys refused from now on."""
    terminal = Terminal(as_json)
    if (api := remote()) is not None:
        owners = [_owner(api, key_id) for key_id in key_ids]
        for key_id, owner in zip(key_ids, owners, strict=True):
            api.revoke_key(key_id, owner)
    else:
        _, keys = _opened()
        for key_id in key_ids:
            keys.read(key_id)
        for key_id in key_ids:
            keys.revoke(key_id, by=principal())
    terminal.document({"revoked": list(key_ids)})
    if not as_json:
        terminal.say(f"Revoked {', '.join(key_ids)}.")


def _created_there(
    api: Client,
    user: str,
    roles: Sequence[str],
    addresses: Sequence[str],
    days: int | None,
    label: str,
) -> NewKey:
    from shared.identity.permissions import ADMIN

    is_known = user in {one["name"] for one in api.users()}
    if not is_known:
        given = list(roles) or ([ADMIN] if user == ADMIN else [])
        if not given:
            raise _no_user(user)
        api.create_user(user, given)
    scope: dict[str, Any] = {"label": label, "addresses": list(addresses)}
    if is_known and roles:
        scope["roles"] = list(roles)
    if days:
        scope["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return api.create_key(scope, _unless_me(api, user))


def _unless_me(api: Client, user: str) -> str:
    """The user, or "" for whoever asks: nobody changes themselves as one of the users."""
    return "" if user == api.me()["name"] else user


def _owner(api: Client, key_id: str) -> str:
    """Whose key it is, as the client names them."""
    for one in api.users():
        if any(key["id"] == key_id for key in api.keys(one["name"])):
            return _unless_me(api, one["name"])
    raise CommandFailedError(
        f"there is no key {key_id}", hint="`axiom keys list` shows all.", code="no-key"
    )


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
        raise _no_user(name)
    try:
        user = User(name=name, roles=given)
    except ValidationError:
        raise click.UsageError("a user's name has letters, digits and _.- alone") from None
    directory.create_user(user, by=principal())


def _no_user(name: str) -> CommandFailedError:
    return CommandFailedError(
        f"there is no user {name!r}",
        hint="Name the roles that the new user is to have with --role.",
        code="no-user",
    )


def _show(made: NewKey, as_json: bool) -> None:
    terminal = Terminal(as_json)
    terminal.document(made)
    if not as_json:
        terminal.say(made["key"])
        terminal.say(f"Key {made['id']}; it is shown this once: keep it.", style="dim")
