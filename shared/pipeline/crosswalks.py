"""Crosswalk maps as the program uses them: rules look up in them, people look after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from shared.rules.crosswalk import CrosswalkLookup


class CrosswalkStatus(Struct, frozen=True):
    """How one map does. What is of the copy is empty where the map has no `sync`."""

    map_name: str
    source: str
    type: str
    enabled: bool
    is_copied: bool
    rows: int | None = None  # of the copy in use
    synced_at: str | None = None  # when that was taken
    failed_at: str | None = None  # when a newer one could not be
    error: str | None = None  # why


class Crosswalks(CrosswalkLookup, Protocol):
    """All crosswalk maps of the configuration. Used from several threads at once."""

    def sync(self, map_name: str) -> CrosswalkStatus:
        """Copy the map's whole table now; every process answers from it within seconds.

        Raises: CrosswalkMisconfiguredError, also of a map without `sync`;
        CrosswalkUnavailableError, and the copy that there is stays.
        """

    def status(self) -> Sequence[CrosswalkStatus]:
        """Of every map, in the configuration's order. Asks no source."""

    def close(self) -> None:
        """Release connections and end what runs in the background."""
