"""Options and settings that many commands share."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from infra.local.terminal import CommandFailedError

if TYPE_CHECKING:
    from shared.client import Client
    from shared.environment import Environment
    from shared.pipeline.ports import Ports


class Moment(click.ParamType[datetime]):
    """A date or a time; without an offset it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The time, timezone-aware. Raises: click.BadParameter."""
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail("it is a date or time such as 2026-11-21T08:00Z", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def read_environment() -> Environment:
    """The settings. Raises: CommandFailedError naming the one that is wrong."""
    from shared import exporting, logs
    from shared.environment import Environment

    try:
        logs.check_settings()
        exporting.check_settings()
        return Environment.read()
    except ValueError as error:
        raise CommandFailedError(str(error), code="bad-setting") from None


def remote() -> Client | None:
    """The API that --url or AXIOM_URL names; None if AXIOM_HOME is meant.

    Raises: click.UsageError for what is no URL.
    """
    context = click.get_current_context(silent=True)
    url = context.find_root().params.get("url") if context else None
    if not url:
        return None
    from shared.client import Client

    try:
        return Client(
            url,
            os.environ.get("AXIOM_API_KEY", ""),
            identity_token=os.environ.get("AXIOM_IDENTITY_TOKEN", ""),
        )
    except ValueError as error:
        raise click.UsageError(f"--url: {error}.") from None


def open_ports(*, create: bool = False) -> Ports:
    """The ports over AXIOM_HOME, whether the system runs or not.

    Raises: CommandFailedError if there is no such home and it is not to be created, or if a system
    elsewhere is meant.
    """
    if remote() is not None:
        raise CommandFailedError(
            "this works on AXIOM_HOME alone",
            hint="Leave out --url and AXIOM_URL, on the machine itself.",
            code="not-remote",
        )
    home = read_environment().home
    if not create and not home.exists():
        raise CommandFailedError(
            f"there is no Axiom Flow home at {home}",
            hint="Start one with `axiom up`, or name another with AXIOM_HOME.",
            code="no-home",
        )
    from shared import exporting
    from shared.bootstrap import from_environment

    exporting.be_command()
    return from_environment()


def principal() -> str:
    """Who is to be recorded as having done what a command does."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return "cli"
