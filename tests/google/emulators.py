"""Google's own emulators of Firestore and Pub/Sub, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local.rehearse import emulators


@contextmanager
def emulator(name: str, folder: Path) -> Iterator[str]:
    """`host:port` of the running emulator. Skips the test where there is none to run."""
    if not emulators.are_installed():
        pytest.skip("Google's emulators are not installed")
    with emulators.emulator(name, folder) as address:
        yield address
