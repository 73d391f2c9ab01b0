"""`python -m infra.cost`: write docs/cost.md; with `measure`: print CPU time of each stage."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.cost.counting import count
from infra.cost.page import page

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "cost.md"
_MEASURED = 500


def main(arguments: list[str]) -> None:
    """Do one of both."""
    if arguments == ["measure"]:
        for stage, work in count(_MEASURED).items():
            print(f"{stage}: {work.cpu_s * 1000 / _MEASURED:.1f} ms")
        return
    _PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
