"""Who gives way where all places of a listener are taken: the peer that has the most of them.

One peer that opens associations without end, hostile or broken, then takes places from itself and
from nobody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Protocol, TypeVar


class Holder(Protocol):
    """One who has a place."""

    @property
    def peer_address(self) -> str:
        """IP address of the peer."""

    @property
    def is_idle(self) -> bool:
        """True between two messages."""

    @property
    def served_s(self) -> float:
        """When it was of use last: its last message, or its beginning. Monotonic."""


H = TypeVar("H", bound=Holder)


def who_gives_way(holders: Collection[H], newcomer: str) -> H | None:
    """The holder whose place a newcomer of that address gets; None if it gets none.

    It is of the address with the most places, as long as that keeps at least as many as the
    newcomer's then has: idle if one is, and of those the one that was of use longest ago.
    """
    places = Counter(holder.peer_address for holder in holders)
    if not places:
        return None
    greediest, most = max(places.items(), key=lambda place: place[1])
    if places[newcomer] + 1 > most - 1:
        return None
    theirs = [holder for holder in holders if holder.peer_address == greediest]
    return min(theirs, key=lambda holder: (not holder.is_idle, holder.served_s))
