"""The parts of the running system, each of them a process.

Around the part's own `main` it adds what every child needs: a sign of life each second, its metrics
where all can be read together, and an end of its own when the supervisor is gone, however that
ended.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local.heartbeat import Heartbeat
from shared.metrics_folder import MetricsFolder

# Holds the number of the pipe's end that stays open as long as the supervisor lives.
LIFELINE_VARIABLE = "AXIOM_LIFELINE_FD"

# Names the parts that the supervisor runs, with spaces between them.
PARTS_VARIABLE = "AXIOM_PARTS"

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One process: a function of a module. Parts of a lower `stop_order` are stopped first, intake
    before work.
    """

    name: str
    module: str
    stop_order: int
    function: str = "main"


PARTS = (
    Part("http", "infra.local.http", 0),
    Part("gateway", "scp_gateway.main", 0),
    Part("polling", "infra.local.polling", 0),
    Part("stages", "infra.local.stages", 1),
    Part("delivery", "infra.local.delivery", 2),
)
PART_NAMES = tuple(part.name for part in PARTS)


def parts_with(stage_processes: int) -> Sequence[Part]:
    """All parts where so many processes validate, apply rules and standardise."""
    more = (
        Part(f"stages-{number}", "infra.local.stages", 1, "work")
        for number in range(2, stage_processes + 1)
    )
    return (*PARTS, *more)


def become(part: Part, *, forked_by: int) -> None:
    """Be `part` until it ends, in a process of its own, a child of `forked_by`.

    It ends as soon as the supervisor does, and what it forks too: nothing acknowledged is in memory
    alone, so an end without notice loses nothing.
    """
    _show_name(part.name)
    lifeline = int(os.environ.pop(LIFELINE_VARIABLE))
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()
    _end_with_parent(forked_by)
    run_dir = Path(os.environ["AXIOM_HOME"]) / "run"
    Heartbeat(part.name, run_dir).start()
    MetricsFolder(run_dir / "metrics").keep(part.name)
    getattr(importlib.import_module(part.module), part.function)()


def process_name(part: str) -> str:
    """What `ps -o comm` and `top` show of a part's process."""
    return f"axiom {part}"


def _show_name(part: str) -> None:
    with suppress(OSError):  # Linux alone
        Path("/proc/self/comm").write_text(process_name(part), encoding="ascii")


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        # Reaches a process whose threads cannot run; the pipe reaches its children as well.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the process that this one was forked from has ended")


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)
    # This process leads a group of its own.
    os.killpg(os.getpgid(0), signal.SIGKILL)
