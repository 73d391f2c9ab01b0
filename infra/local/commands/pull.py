"""`axiom pull`: fetch Studies from a source on demand."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import json_option, open_ports, principal, remote
from infra.local.terminal import CommandFailedError, Terminal
from infra.local.waiting import waited_for

if TYPE_CHECKING:
    from shared.client import Client
    from shared.pipeline.ports import Ports

# Of the newest jobs, as many as are looked at.
_LISTED = 500
_COUNTS = ("done", "failed", "unknown", "instances")


@click.group("pull", invoke_without_command=True)
@click.option("--source", metavar="NAME", help="Whom to ask.")
@click.option("--study", "studies", multiple=True, metavar="UID", help="May be repeated.")
@click.option("--accession", "accessions", multiple=True, metavar="NUMBER", help="As --study.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A list: a column StudyInstanceUID or AccessionNumber, or one column alone.",
)
@click.option("--again", is_flag=True, help="Fetch what came already, too.")
@click.option("--background", is_flag=True, help="Leave it to the running system.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    source: str | None,
    studies: tuple[str, ...],
    accessions: tuple[str, ...],
    csv_file: Path | None,
    again: bool,
    background: bool,
    as_json: bool,
) -> int:
    """Fetch Studies from a source, by UID, accession number or a list of these.

    Ctrl-C pauses; `axiom pull resume ID` goes on. Exit status 1 if a row was not done.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from shared.pipeline import pulls

    if source is None:
        raise click.UsageError("Missing option '--source'.")
    if (api := remote()) is not None:
        text = pulls.csv_text(csv_file.read_bytes()) if csv_file is not None else ""
        lists = {"studies": list(studies), "accessions": list(accessions), "csv": text}
        started = api.pull({"source": source, **lists, "again": again})
        return _left(started, as_json) if background else _wait(api, started["id"], as_json)
    try:
        wanted = [pulls.Wanted("StudyInstanceUID", uid) for uid in studies]
        wanted += [pulls.Wanted("AccessionNumber", number) for number in accessions]
        if csv_file is not None:
            wanted += pulls.read_csv(pulls.csv_text(csv_file.read_bytes()))
        ports = open_ports()
        if source not in _enabled(ports):
            raise CommandFailedError(
                f"there is no enabled source {source}",
                hint="`axiom sources list` shows all.",
                code="no-source",
            )
        job = pulls.create(source, wanted, by=principal(), ports=ports, again=again)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    if background:
        pulls.start(job["id"], ports)
        return _left(job, as_json)
    return _work(job["id"], as_json)


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List pulls, newest first."""
    from shared.pipeline.pulls import JOBS

    terminal = Terminal(as_json)
    found: Iterable[Mapping[str, Any]]
    if (api := remote()) is not None:
        found = api.jobs()
    else:
        page = open_ports().documents.query(
            JOBS, order_by="created_at", descending=True, limit=_LISTED
        )
        found = [one.data for one in page.documents]
    jobs = [one for one in itertools.islice(found, _LISTED) if one.get("kind") == "pull"]
    terminal.document({"pulls": jobs})
    terminal.table(
        ["pull", "source", "state", "rows", *_COUNTS],
        [
            [job["id"], job["source"], job["state"], job["total"], *(job[c] for c in _COUNTS)]
            for job in jobs
        ],
        empty="No pulls.",
    )


@command.command("show")
@click.argument("pull_id", metavar="ID")
@json_option
def show(pull_id: str, as_json: bool) -> None:
    """Show how far a pull is, and what became of each row."""
    if (api := remote()) is not None:
        _print(Terminal(as_json), api.read_pull(pull_id), list(api.pull_rows(pull_id)))
        return
    ports = open_ports()
    found = ports.documents.get("jobs", pull_id)
    if found is None:
        raise _missing(pull_id)
    _print(Terminal(as_json), found.data, _rows(pull_id))


@command.command("pause")
@click.argument("pull_id", metavar="ID")
@json_option
def pause(pull_id: str, as_json: bool) -> None:
    """Stop a pull after the rows at hand."""
    from shared.pipeline import pulls

    api = remote()
    job: Mapping[str, Any] = (
        pulls.pause(pull_id, by=principal(), ports=open_ports())
        if api is None
        else api.pause_pull(pull_id)
    )
    Terminal(as_json).document(job)


@command.command("resume")
@click.argument("pull_id", metavar="ID")
@click.option("--background", is_flag=True, help="Leave it to the running system.")
@json_option
def resume(pull_id: str, background: bool, as_json: bool) -> int:
    """Go on with a pull that was paused or interrupted."""
    from shared.pipeline import pulls

    if (api := remote()) is not None:
        if api.read_pull(pull_id)["state"] == pulls.PAUSED:
            api.resume_pull(pull_id)
        return 0 if background else _wait(api, pull_id, as_json)
    ports = open_ports()
    found = ports.documents.get("jobs", pull_id)
    if found is None:
        raise _missing(pull_id)
    if found.data["state"] == pulls.PAUSED:
        pulls.resume(pull_id, by=principal(), ports=ports)
    if background:
        pulls.start(pull_id, ports)
        return 0
    return _work(pull_id, as_json)


def _work(pull_id: str, as_json: bool) -> int:
    from shared.errors import SourceUnavailableError
    from shared.pipeline import pulls

    terminal, ports = Terminal(as_json), open_ports()

    def tell(job: Mapping[str, Any]) -> None:
        rows = job["done"] + job["failed"] + job["unknown"]
        if job["total"] > rows:
            terminal.say(f"{rows} of {job['total']} rows, {job['instances']} Instances")

    try:
        pulls.work(pull_id, ports, tell=tell)
    except KeyboardInterrupt:
        pulls.pause(pull_id, by=principal(), ports=ports)
        raise _paused(pull_id) from None
    except SourceUnavailableError as error:
        pulls.pause(pull_id, by=principal(), ports=ports)
        raise CommandFailedError(
            str(error), hint=f"Then `axiom pull resume {pull_id}`.", code=error.code
        ) from None
    job = ports.documents.get(pulls.JOBS, pull_id)
    assert job is not None
    _print(terminal, job.data, _rows(pull_id))
    return int(job.data["done"] < job.data["total"])


def _enabled(ports: Ports) -> set[str]:
    return {one.name for one in ports.configuration.get().sources if one.enabled}


def _left(job: Mapping[str, Any], as_json: bool) -> int:
    Terminal(as_json).document(job)
    Terminal(as_json).say(f"{job['id']}: {job['total']} rows; `axiom pull show` tells more")
    return 0


def _wait(api: Client, pull_id: str, as_json: bool) -> int:
    """Until the system there has done it, or paused it."""
    try:
        ended = waited_for(lambda: api.read_pull(pull_id), lambda job: job["state"] != "running")
    except KeyboardInterrupt:
        api.pause_pull(pull_id)
        raise _paused(pull_id) from None
    assert ended is not None
    _print(Terminal(as_json), ended, list(api.pull_rows(pull_id)))
    return int(ended["done"] < ended["total"])


def _rows(pull_id: str) -> list[dict[str, Any]]:
    from shared.pipeline import pulls

    return [pulls.shown(row) for row in pulls.all_rows(pull_id, open_ports())]


def _print(terminal: Terminal, job: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    terminal.document({**job, "rows": rows})
    counts = ", ".join(f"{name} {job[name]}" for name in _COUNTS)
    terminal.say(f"{job['id']}: {job['state']}, {job['total']} rows: {counts}")
    if job["reason"]:
        terminal.say(job["reason"])
    terminal.table(
        ["row", "state", "shown", "received", "refused", "missing", "Study", ""],
        [
            [
                row["number"],
                row["state"],
                row["shown"],
                row["received"],
                row["refused"],
                row["missing"],
                ", ".join(row["studies"]),
                row["reason"],
            ]
            for row in rows
        ],
    )


def _paused(pull_id: str) -> CommandFailedError:
    return CommandFailedError(
        f"{pull_id} is paused", hint=f"axiom pull resume {pull_id}", code="paused"
    )


def _missing(pull_id: str) -> CommandFailedError:
    return CommandFailedError(
        f"there is no pull {pull_id}", hint="`axiom pull list` shows all.", code="no-pull"
    )
