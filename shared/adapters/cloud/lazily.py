"""A port whose adapter, with its client, is imported and made when it is first used.

Google's clients take half a second of CPU each to import, and a function needs some of them only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


def lazily(make: Callable[[], T]) -> T:
    """Stands for what `make` gives, which is called once; again after it has raised."""
    return cast(T, _Lazily(make))


class _Lazily:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return getattr(self._made, name)
