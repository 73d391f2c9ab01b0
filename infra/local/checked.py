"""What a peer said when it was asked whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.local.terminal import Terminal


def tell(checked: Mapping[str, Any], terminal: Terminal) -> int:
    """Print it; the exit status, 1 if the peer is not there."""
    terminal.document(checked)
    terminal.say(f"{checked['answer']}, {checked['ms']} ms", style=None if checked["ok"] else "red")
    if not checked["ok"]:
        terminal.say(checked["hint"], style="dim")
    return int(not checked["ok"])
