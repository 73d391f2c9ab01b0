from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import mariadb, postgresql, sqlite_file
from tests.unit.crosswalk.site import Site

__all__ = ["mariadb", "postgresql", "site", "sqlite_file"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site without any crosswalk yet."""
    site = Site(tmp_path / "home")
    yield site
    site.close()
