"""A function behind Cloud Run: started by a request, anew after its death, and ended for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.rehearse.services import Process, Service
from infra.local.terminal import CommandFailedError


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A program that answers each POST with 204."""
    process = Process("echo", "tests.unit.rehearse.echo", "PORT", {}, tmp_path)
    yield Service(process)
    process.end()


def test_a_request_starts_it_and_finds_it_again_after_its_death(service: Service) -> None:
    assert service.post(b"", {}, 60) == 204
    service.process.kill()
    assert service.post(b"", {}, 60) == 204


def test_a_request_finds_none_where_there_is_no_room(service: Service) -> None:
    service.turns_away = 1
    assert [service.post(b"", {}, 60) for _ in range(2)] == [429, 204]


def test_whoever_asks_after_its_end_is_turned_away(service: Service) -> None:
    assert service.post(b"", {}, 60) == 204
    service.process.end()
    assert service.post(b"", {}, 60) == 503


def test_what_does_not_listen_says_why(tmp_path: Path) -> None:
    broken = Process("broken", "no.such.module", "PORT", {}, tmp_path)
    assert Service(broken).post(b"", {}, 60) == 503
    with pytest.raises(CommandFailedError, match="No module named"):
        broken.start()
