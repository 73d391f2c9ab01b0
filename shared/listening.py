"""Where the gateway of one machine is to listen, as it says itself: for those who show it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def tell(run_dir: Path, listeners: Sequence[Mapping[str, Any]]) -> None:
    """Leave it for others to read; a full disk keeps it untold."""
    file = _file(run_dir)
    fresh = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        fresh.write_text(json.dumps(listeners), encoding="utf-8")
        fresh.replace(file)


def told(run_dir: Path) -> Sequence[Mapping[str, Any]] | None:
    """What it said last; None if nothing."""
    try:
        found: Sequence[Mapping[str, Any]] = json.loads(_file(run_dir).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _file(run_dir: Path) -> Path:
    return run_dir / "listeners.json"
