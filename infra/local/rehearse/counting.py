"""What one Instance asks of Google, counted while some pass through the system undisturbed.

Left out is what is asked by the clock and not by the Instance: a process looks at the head of the
configuration twice a second while it works.
"""

from __future__ import annotations

import secrets
import tempfile
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from infra.local.benching.instances import synthetic_ct
from infra.local.rehearse.configuring import PRIMARY, configure, healthcare_destination
from infra.local.rehearse.meter import Kind
from infra.local.rehearse.sending import DimseSender
from infra.local.rehearse.system import GATEWAY, MAIN_PATH, System
from infra.local.rehearse.waiting import wait
from infra.local.terminal import CommandFailedError

CLEAN_UP = "clean_up"
STAGES = (GATEWAY, *MAIN_PATH, CLEAN_UP)
KINDS = ("read", "write", "delete", "class_a", "class_b", "list", "message", "message_bytes")

_WARM = 4
_SIDE = 512  # half a mebibyte
_NUMBERS = 10**9
_BY_THE_CLOCK = "configuration"

Counted = Mapping[str, Mapping[str, float]]


def count(system: System, instances: int) -> Counted:
    """By stage: each kind of operation, and `cpu_ms`, on average for one Instance that goes to one
    destination and is cleaned up at last. Deletes what was received before.

    Raises: CommandFailedError.
    """
    with system.turn(CLEAN_UP):  # no timer comes in between
        return _counted(system, instances)


def _counted(system: System, instances: int) -> Counted:
    destination = healthcare_destination(PRIMARY, system.delivered)
    settings = {"default_route": [PRIMARY], "retention_s": 0.0, "record_retention_s": 0.001}
    nothing: dict[str, list[Any]] = {"rulesets": [], "sources": [], "standardizers": []}
    configure(system, destinations=[destination], settings=settings, **nothing)
    _pass(system, _WARM)
    _clean_up(system)
    in_vain = _clean_up(system)
    done = {stage: _Work(system, stage) for stage in (GATEWAY, *MAIN_PATH)}
    _pass(system, instances)
    counted = {stage: work.so_far() for stage, work in done.items()}
    swept = _clean_up(system)
    counted[CLEAN_UP] = Counter({kind: swept[kind] - in_vain[kind] for kind in swept})
    return {
        stage: {kind: one[kind] / instances for kind in (*KINDS, "cpu_ms")}
        for stage, one in counted.items()
    }


class _Work:
    """What a process has done since this was made."""

    def __init__(self, system: System, process: str) -> None:
        self._system, self._process = system, process
        self._before, self._cpu_s = self._counted(), self._used_s()

    def so_far(self) -> Counter[str]:
        """By kind; `cpu_ms` too."""
        counted = self._counted()
        counted.subtract(self._before)
        counted["cpu_ms"] = round(1000 * (self._used_s() - self._cpu_s))
        return counted

    def _used_s(self) -> float:
        return self._system.processes[self._process].cpu_s()

    def _counted(self) -> Counter[str]:
        counted: Mapping[Kind, int] = self._system.meter.read().get(self._process, {})
        kinds: Counter[str] = Counter()
        for (kind, place), number in counted.items():
            if not place.startswith(_BY_THE_CLOCK):
                kinds[kind] += number
        return kinds


def _pass(system: System, instances: int) -> None:
    """Send so many, and return when all is done that follows."""
    delivered = len(system.delivered)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        first = secrets.randbelow(_NUMBERS)  # others than before
        files = synthetic_ct(made, instances, rows=_SIDE, columns=_SIDE, first=first)
        sender = DimseSender(
            system, Path(scratch) / "sent", {path.stem: path.read_bytes() for path in files}
        )
        sender.start()
        sender.join()
    wait(lambda: len(system.delivered) >= delivered + instances and not system.pushing.waiting)


def _clean_up(system: System) -> Counter[str]:
    """A whole cycle, of a new process: it begins at once."""
    process = system.processes[CLEAN_UP]
    process.kill()
    process.start()
    work = _Work(system, CLEAN_UP)
    status = system.tick(CLEAN_UP)
    if status != HTTPStatus.NO_CONTENT:
        raise CommandFailedError(f"clean_up answers {status}", code="not-in-time")
    return work.so_far()
