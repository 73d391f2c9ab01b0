"""What a rehearsal found: claims, each with what it should be and what it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Cloud Run sends SIGKILL then.
_KILLED_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that was tried. `holds` where `found` is what was expected."""

    what: str
    tried: int
    expected: int
    found: int

    @property
    def holds(self) -> bool:
        """Whether it is as it should be."""
        return self.expected == self.found


@dataclass(slots=True)
class Outcome:
    """What became of it all."""

    claims: list[Claim] = field(default_factory=list)
    lost: Sequence[str] = ()  # SOP Instance UIDs that were acknowledged and are nowhere
    # What one Instance asks of Google, by stage.
    operations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ended_s: Mapping[str, float] = field(default_factory=dict)
    killed: int = 0  # processes, in the middle of their work
    pushes: int = 0
    pushed_again: int = 0
    seconds: float = 0.0

    def claim(self, what: str, tried: int, expected: int, found: int) -> None:
        """Add one."""
        self.claims.append(Claim(what, tried, expected, found))

    @property
    def late(self) -> list[str]:
        """Processes that Cloud Run would have killed when it ended them."""
        return sorted(name for name, s in self.ended_s.items() if s > _KILLED_AFTER_S)

    @property
    def holds(self) -> bool:
        """Whether all went as it should."""
        return not self.lost and not self.late and all(claim.holds for claim in self.claims)

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "holds": self.holds,
            "lost": list(self.lost),
            "claims": [
                {
                    "what": one.what,
                    "tried": one.tried,
                    "expected": one.expected,
                    "found": one.found,
                    "holds": one.holds,
                }
                for one in self.claims
            ],
            "operations": {
                stage: {kind: round(number, 1) for kind, number in counted.items()}
                for stage, counted in self.operations.items()
            },
            "killed": self.killed,
            "pushes": self.pushes,
            "pushed_again": self.pushed_again,
            "late": self.late,
            "slowest_end_s": round(max(self.ended_s.values(), default=0.0), 1),
            "seconds": round(self.seconds, 1),
        }
