"""Processes count the places of a listener together."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scp_gateway import shared_places
from scp_gateway.shared_places import SharedPlaces


@pytest.fixture
def counted() -> Iterator[tuple[SharedPlaces, SharedPlaces]]:
    """The counts as two processes see them."""
    owner = SharedPlaces.create(3)
    first, second = (SharedPlaces(os.dup(owner.fd), row=row, rows=3) for row in (1, 2))
    yield first, second
    for one in (owner, first, second):
        os.close(one.fd)


def test_each_sees_what_the_others_have(counted: tuple[SharedPlaces, SharedPlaces]) -> None:
    first, second = counted
    first.have(7, 300)
    second.have(7, 2)
    with first.others(7) as places:
        assert places == 2
    with second.others(7) as places:
        assert places == 300
    with second.others(8) as places:
        assert places == 0


def test_the_places_of_a_process_that_died_are_free(
    counted: tuple[SharedPlaces, SharedPlaces],
) -> None:
    first, second = counted
    first.have(0, 5)
    second.forget(1)
    with second.others(0) as places:
        assert places == 0


def test_a_column_is_given_again_when_nobody_counts_in_it(
    counted: tuple[SharedPlaces, SharedPlaces],
) -> None:
    """The last associations of a removed listener are not counted for another."""
    first, second = counted
    first.have(0, 1)
    assert second.free_column({1}) == 2
    first.have(0, 0)
    assert second.free_column({1}) == 0
    with pytest.raises(OSError, match="too many listeners"):
        second.free_column(range(shared_places.MAX_LISTENERS))
