"""Asking a peer whether it is there, as a person does before anything depends on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import closing
from typing import Any

from shared.audit import AuditLog
from shared.errors import (
    AxiomError,
    DestinationUnavailableError,
    DocumentMissingError,
    SourceUnavailableError,
)
from shared.pipeline.ports import Ports

# One wait for the peer, and all of them: people wait for the answer.
_ANSWER_S = 10.0
_WHOLE_S = 25.0


def check_destination(
    name: str, ports: Ports, *, by: str, within_s: float = _WHOLE_S
) -> Mapping[str, Any]:
    """What it answers in short and after how many milliseconds; `ok` is false for one that does
    not take what is sent to it, with what it says, and `code` and `hint` as in the exception log.

    Over connections of its own, so that it says nothing of those that deliveries hold open. One
    that is not enabled is asked too. Recorded in the audit log.

    Raises: DestinationMisconfiguredError if there is none of that name.
    """
    ports.destinations.entity(name)

    def ask() -> str:
        with closing(ports.destinations.open(name, timeout_s=_ANSWER_S)) as destination:
            return destination.check()

    silent = DestinationUnavailableError(name, f"no answer in {within_s:g} s")
    return _checked("destination", name, ask, silent, ports, by=by, within_s=within_s)


def check_source(
    name: str, ports: Ports, *, by: str, within_s: float = _WHOLE_S
) -> Mapping[str, Any]:
    """The same of a source; nothing is fetched. Raises: DocumentMissingError."""
    entity, open_source = ports.configuration.get().source(name), ports.open_source
    if entity is None or open_source is None:
        raise DocumentMissingError("sources", name)

    def ask() -> str:
        with closing(open_source(entity)) as source:
            return source.check()

    silent = SourceUnavailableError(name, f"no answer in {within_s:g} s")
    return _checked("source", name, ask, silent, ports, by=by, within_s=within_s)


def _checked(
    noun: str,
    name: str,
    ask: Callable[[], str],
    silent: AxiomError,
    ports: Ports,
    *,
    by: str,
    within_s: float,
) -> Mapping[str, Any]:
    began_s = ports.clock.monotonic_s()
    answer, code, hint = "", "", ""
    try:
        answer = _answer_within(within_s, ask, f"check-{name}", silent)
    except AxiomError as error:
        answer, code, hint = str(error), error.code, error.hint
    took_s = ports.clock.monotonic_s() - began_s
    AuditLog(ports.documents, ports.clock).add(
        who=by, what=f"{noun}.check", id=name, after=code or "ok"
    )
    return {
        noun: name,
        "ok": not code,
        "answer": answer,
        "code": code,
        "hint": hint,
        "ms": round(took_s * 1000),
    }


def _answer_within(
    seconds: float, ask: Callable[[], str], thread_name: str, silent: AxiomError
) -> str:
    """A peer that trickles, or a mount that hangs, keeps a thread but nobody waiting."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=thread_name, daemon=True).start()
    if not wait([future], timeout=seconds).done:
        raise silent
    return future.result()
