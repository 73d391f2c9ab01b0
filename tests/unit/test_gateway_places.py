"""Who gives way where all places are taken."""

from __future__ import annotations

from dataclasses import dataclass

from scp_gateway.places import who_gives_way


@dataclass(frozen=True)
class Holder:
    peer_address: str
    served_s: float = 0.0
    is_idle: bool = True


def test_nobody_gives_way_to_one_more_of_the_greediest() -> None:
    assert who_gives_way([Holder("a"), Holder("a"), Holder("b")], "a") is None


def test_a_newcomer_gets_a_place_of_the_greediest() -> None:
    holders = [Holder("a", 1), Holder("b", 0), Holder("a", 2)]
    assert who_gives_way(holders, "c") == Holder("a", 1)


def test_who_works_gives_way_last() -> None:
    holders = [Holder("a", 1, is_idle=False), Holder("a", 5), Holder("a", 7)]
    assert who_gives_way(holders, "b") == Holder("a", 5)
    assert who_gives_way([Holder("a", 3, False), Holder("a", 1, False)], "b") is not None


def test_a_place_does_not_go_to_and_fro() -> None:
    """Two peers with as many places each would else take turns in throwing the other out."""
    assert who_gives_way([Holder("a"), Holder("a"), Holder("b")], "b") is None
    assert who_gives_way([Holder("a")], "b") is None
    assert who_gives_way([], "a") is None
