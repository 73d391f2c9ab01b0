"""The rehearsed cloud, started once for all the tests of a worker process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.local.rehearse.run import check_tools
from infra.local.rehearse.system import System, running_system
from infra.local.terminal import CommandFailedError


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The running system; whatever others have done to it stays done."""
    try:
        check_tools()
    except CommandFailedError as error:
        pytest.skip(str(error))
    with running_system(tmp_path_factory.mktemp("rehearsed"), lambda text: None) as system:
        yield system
