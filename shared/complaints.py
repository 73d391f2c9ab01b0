"""What a part of one machine says is wrong with it while it runs, for those who ask how it is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def complain(run_dir: Path, part: str, words: str) -> None:
    """Say it until something else is said; "" is nothing. A full disk keeps it unsaid."""
    file = _file(run_dir, part)
    with suppress(OSError):
        if not words:
            file.unlink(missing_ok=True)
            return
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(words, encoding="utf-8")
        fresh.replace(file)


def complaint(run_dir: Path, part: str) -> str:
    """The last words, "" for none."""
    try:
        return _file(run_dir, part).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _file(run_dir: Path, part: str) -> Path:
    return run_dir / f"{part}.complaint"
