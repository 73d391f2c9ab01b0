"""`axiom send`: a Storage SCU with a progress bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from infra.local.options import json_option, read_environment
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from infra.local.sending import SendResult

# More rows than this tell a person less than the failures alone.
_MAX_ROWS = 60

_REPORTED = (
    "path",
    "size",
    "outcome",
    "reason",
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "dimse_status",
    "ms",
)

_MAX_PDU_SIZE = 131072
_TIMEOUT_S = 120.0


def _checked(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    from shared.dicom.ae_titles import checked_ae_title

    try:
        return text and checked_ae_title(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.command("send", help="Send files and folders over C-STORE, as a modality would.")
@click.argument("files", metavar="FILE|FOLDER|GLOB...", nargs=-1, required=True)
@click.option("--host", help="The peer's address.  [AXIOM_DIMSE_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port.  [the running system's]")
@click.option(
    "--called-ae", metavar="AET", callback=_checked, help="Its AE Title.  [AXIOM_AE_TITLE]"
)
@click.option(
    "--calling-ae", metavar="AET", callback=_checked, default="AXIOM_SEND", show_default=True
)
@json_option
def command(
    files: Sequence[str],
    host: str | None,
    port: int | None,
    called_ae: str | None,
    calling_ae: str,
    as_json: bool,
) -> int:
    """Exit status 1 if a file was not stored."""
    from infra.local.addresses import reachable, read_addresses
    from infra.local.sending import FAILED, examine, find_files, send
    from shared.adapters.destinations.association import Peer

    terminal = Terminal(as_json)
    environment = read_environment()
    running = read_addresses(environment.home)
    port = port or (running.dimse_port if running else environment.dimse_port)
    if not port:
        raise CommandFailedError(
            f"no system runs on {environment.home}, and AXIOM_DIMSE_PORT is 0",
            hint="Start it with `axiom up`, or name a --port.",
            code="not-running",
        )
    peer = Peer(
        host=host or reachable(environment.dimse_host),
        port=port,
        called_ae_title=called_ae or environment.ae_title,
        calling_ae_title=calling_ae,
        max_pdu_size=_MAX_PDU_SIZE,
        timeout_s=_TIMEOUT_S,
    )
    try:
        found = find_files(files)
    except FileNotFoundError as error:
        raise CommandFailedError(f"no such file: {error}", code="no-such-file") from None
    examined = [examine(path) for path in found]
    results = [file for file in examined if file.outcome]
    fit = [file for file in examined if not file.outcome]
    results += _with_progress(terminal, send(fit, peer), fit)
    _report(terminal, results, peer.host, peer.port)
    return int(any(result.outcome == FAILED for result in results))


def _with_progress(
    terminal: Terminal, sending: Iterator[SendResult], files: Sequence[SendResult]
) -> list[SendResult]:
    if terminal.as_json or not terminal.console.is_terminal:
        return list(sending)
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    results = []
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        "sending", *columns, "{task.fields[done]} files", console=terminal.console, transient=True
    ) as progress:
        task = progress.add_task("", total=sum(file.size for file in files), done=0)
        for result in sending:
            results.append(result)
            progress.update(task, advance=result.size, done=f"{len(results)} of {len(files)}")
    return results


def _report(terminal: Terminal, results: Sequence[SendResult], host: str, port: int) -> None:
    from infra.local.sending import SENT

    counts = Counter(result.outcome for result in results)
    terminal.document(
        {
            "peer": f"{host}:{port}",
            "counts": dict(counts),
            "files": [
                {name: value for name, value in asdict(result).items() if name in _REPORTED}
                for result in results
            ],
        }
    )
    shown = [r for r in results if len(results) <= _MAX_ROWS or r.outcome != SENT]
    terminal.table(
        ["file", "outcome", "status", "ms", "why"],
        [
            [r.path, "ok" if r.outcome == SENT else r.outcome, r.dimse_status, r.ms or "", r.reason]
            for r in shown
        ],
    )
    if not terminal.as_json:
        tally = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminal.say(f"{host}:{port}: {tally or 'nothing to send'}")
