"""Which body part lies in which, and what several together are called."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from shared.standardize.vocabulary import DATA

# From head to foot, as a range ("skull base to thigh") runs.
ZONES = ("HEAD", "NECK", "CHEST", "ABDOMEN", "PELVIS")
_SPINE = ("CSPINE", "TSPINE", "LSPINE", "SSPINE")


@dataclass(frozen=True)
class Anatomy:
    """Containment of Body Part Examined terms. Every term lies in itself."""

    parents: Mapping[str, frozenset[str]]  # all that a term lies in, itself included
    unions: Mapping[frozenset[str], str]
    zones: Mapping[str, frozenset[str]]  # the zones that a term is, if it is made of zones

    def lies_in(self, part: str, whole: str) -> bool:
        return whole in self.parents.get(part, {part})

    def are_related(self, one: str, other: str) -> bool:
        """True if one lies in the other, or both are made of zones and share one."""
        if self.lies_in(one, other) or self.lies_in(other, one):
            return True
        mine, theirs = self.zones.get(one), self.zones.get(other)
        return mine is not None and theirs is not None and bool(mine & theirs)

    def narrowest(self, terms: Collection[str]) -> list[str]:
        """`terms` without those that another of them lies in; of two equal ones the first."""
        kept: list[str] = []
        for term in dict.fromkeys(terms):
            others = [one for one in terms if one != term and self.lies_in(one, term)]
            if all(self.lies_in(term, one) and one not in kept for one in others):
                kept.append(term)
        return kept

    def zones_of(self, term: str) -> frozenset[str]:
        """The zones that a term is made of, else those it lies in."""
        made_of = self.zones.get(term)
        if made_of:
            return made_of
        return frozenset(zone for zone in ZONES if self.lies_in(term, zone))

    def union(self, terms: Collection[str]) -> str | None:
        """The term for all of these together; None if there is none.

        Zones in between count as meant: chest and pelvis are examined with the abdomen.
        """
        found = self.unions.get(frozenset(terms))
        if found is not None:
            return found
        places = [place for place, zone in enumerate(ZONES) if zone in terms]
        if len(places) == len(set(terms)) and places:
            return self.unions.get(frozenset(ZONES[places[0] : places[-1] + 1]))
        levels = [place for place, level in enumerate(_SPINE) if level in terms]
        if len(levels) == len(set(terms)) and levels:
            return self.unions.get(frozenset(_SPINE[levels[0] : levels[-1] + 1]))
        return None


@cache
def anatomy() -> Anatomy:
    """What is part of what, read once."""
    direct: dict[str, set[str]] = {}
    for row in _rows("body_part_examined_parts.csv"):
        for term in row["terms"].split("|"):
            direct.setdefault(term, set()).add(row["part_of"])
    unions: dict[frozenset[str], str] = {}
    zones: dict[str, frozenset[str]] = {zone: frozenset([zone]) for zone in ZONES}
    for row in _rows("body_part_examined_unions.csv"):
        parts = frozenset(row["parts"].split("|"))
        unions[parts] = row["term"]
        if parts <= set(ZONES):
            zones[row["term"]] = parts
        for part in parts:
            direct.setdefault(part, set()).add(row["term"])
    for small, large in ((a, b) for a in zones for b in zones if zones[a] < zones[b]):
        direct.setdefault(small, set()).add(large)
    terms = set(direct) | {one for wholes in direct.values() for one in wholes}
    parents = {term: _all_above(term, direct) | {term, "WHOLEBODY"} for term in terms}
    return Anatomy({term: frozenset(above) for term, above in parents.items()}, unions, zones)


def _all_above(term: str, direct: Mapping[str, Collection[str]]) -> set[str]:
    above: set[str] = set()
    open_ends = list(direct.get(term, ()))
    while open_ends:
        one = open_ends.pop()
        if one not in above:
            above.add(one)
            open_ends += direct.get(one, ())
    return above


def _rows(name: str) -> Iterable[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
