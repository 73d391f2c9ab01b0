"""How often each stage asks each service of Google for one Instance, as a rehearsal counted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTS_FILE = Path(__file__).with_name("counts.json")


@dataclass(frozen=True, slots=True)
class Counts:
    """For one Instance of one destination: by stage, by kind of operation; `cpu_ms` too."""

    counted_on: str
    instances: int
    stages: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls) -> Counts:
        """Those that are checked in."""
        known: Mapping[str, Any] = json.loads(COUNTS_FILE.read_text(encoding="utf-8"))
        return cls(**known)

    def write(self) -> None:
        """Check them in."""
        told = {
            "counted_on": self.counted_on,
            "instances": self.instances,
            "stages": {
                stage: {kind: round(number, 1) for kind, number in counted.items() if number}
                for stage, counted in self.stages.items()
            },
        }
        COUNTS_FILE.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
