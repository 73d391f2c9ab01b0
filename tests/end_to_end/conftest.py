"""Keeps together what one worker process is to run, for the rehearsed cloud starts once for it."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of the rehearsed cloud run first, one after the other: workers that have
    nothing left to do take the last tests of others.
    """
    items.sort(key=lambda item: item.get_closest_marker("rehearsal") is None)
