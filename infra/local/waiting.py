"""Waiting for what a system elsewhere does in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_ASK_EVERY_S = 0.5


def waited_for(
    ask: Callable[[], T], is_done: Callable[[T], bool], *, within_s: float = float("inf")
) -> T | None:
    """What `ask` gives once it is done; None if that takes too long."""
    until_s = time.monotonic() + within_s
    while True:
        found = ask()
        if is_done(found):
            return found
        if time.monotonic() >= until_s:
            return None
        time.sleep(_ASK_EVERY_S)
