"""Run one part as a child of the supervisor: `python -m infra.local.part NAME MODULE`.

Around the part's own `main` it adds what every child needs: a sign of life each second, its metrics
where all can be read together, and an end of its own when the supervisor is gone, however that
ended.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
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
    """One child process. Parts of a lower `stop_order` are stopped first, intake before work."""

    name: str
    module: str
    stop_order: int


PARTS = (
    Part("http", "infra.local.http", 0),
    Part("gateway", "scp_gateway.main", 0),
    Part("polling", "infra.local.polling", 0),
    Part("stages", "infra.local.stages", 1),
    Part("delivery", "infra.local.delivery", 2),
)
PART_NAMES = tuple(part.name for part in PARTS)


def main() -> None:
    """Become the part that the command line names."""
    name, module = sys.argv[1:]
    lifeline = os.environ.pop(LIFELINE_VARIABLE, None)
    if lifeline is not None:
        _end_with_supervisor(int(lifeline))
    run_dir = Path(os.environ["AXIOM_HOME"]) / "run"
    Heartbeat(name, run_dir).start()
    MetricsFolder(run_dir / "metrics").keep(name)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_supervisor(lifeline: int) -> None:
    """Have this process, and what it forks, end as soon as the supervisor does.

    Nothing acknowledged is in memory alone, so an end without notice loses nothing.
    """
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        # Reaches a process whose threads cannot run; the pipe reaches its children as well.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)
    # The supervisor gave this process a group of its own.
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
