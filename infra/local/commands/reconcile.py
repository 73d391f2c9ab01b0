"""`axiom reconcile`: what came from a source against what a destination holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from infra.local.options import Moment, json_option, open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal
from infra.local.waiting import waited_for


@click.command("reconcile")
@click.option(
    "--source",
    default="",
    metavar="NAME",
    help="A listener or source, or a calling AE Title.  [default: all]",
)
@click.option("--destination", required=True, metavar="NAME", help="Whom to ask what it holds.")
@click.option(
    "--since",
    type=Moment(),
    help="Of what was received since, as 2026-11-21 or 2026-11-21T08:00Z.  [default: all]",
)
@click.option(
    "--requeue/--no-requeue",
    default=True,
    show_default=True,
    help="Deliver anew what is missing, or only tell.",
)
@json_option
def command(
    source: str, destination: str, since: datetime | None, requeue: bool, as_json: bool
) -> int:
    """Compare what was received with what a destination holds, by asking it (C-FIND, QIDO-RS, or a
    look into the folder).

    Exit status 1 if something is missing that was not requeued.
    """
    from shared.errors import TransientError
    from shared.pipeline import reconcile

    terminal = Terminal(as_json)
    found: Mapping[str, Any]
    if (api := remote()) is not None:
        wanted = {"source": source, "destination": destination, "requeue": requeue}
        asked = api.reconcile({**wanted, **({"since": since.isoformat()} if since else {})})
        ended = waited_for(
            lambda: api.reconciliation(asked["id"]), lambda one: one["state"] != reconcile.RUNNING
        )
        assert ended is not None
        found = dict(ended)
    else:
        ports = open_ports()
        created = reconcile.create(
            source, destination, ports, by=principal(), since=since, requeue=requeue
        )
        try:
            found = reconcile.work(created["id"], ports)
        except TransientError as error:
            hint = "Nothing was compared: ask again once the destination answers."
            raise CommandFailedError(str(error), hint=hint, code=error.code) from None
    if found["state"] != reconcile.FINISHED:
        raise CommandFailedError(str(found["reason"]), code="not-reconciled")
    terminal.document(found)
    lines = [
        ("present", "there"),
        ("missing", "confirmed, and not there"),
        ("failed", "not delivered, or other bytes are there: see `axiom exceptions list`"),
        ("pending", "on the way"),
        ("extra", "there, and not from here"),
        ("not_routed", "received, and not sent there by any rule"),
        ("not_asked", "confirmed; of no Study, by which the destination is asked"),
        (
            "discarded",
            "not there: given up by a person, replaced by a later copy, or its time over",
        ),
        ("requeued", "delivered anew"),
        ("gone", "missing, and the received file is deleted"),
    ]
    terminal.table(["", "instances", ""], [[name, found[name], words] for name, words in lines])
    named = found["instances"]
    terminal.table(
        ["what", "study", "instance"],
        [
            [kind, one["study_instance_uid"], one["sop_instance_uid"]]
            for kind in ("missing", "failed", "extra")
            for one in named[kind][:20]
        ],
        empty=" ",
    )
    return int(found["missing"] + found["failed"] > found["requeued"])
