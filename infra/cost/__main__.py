"""`python -m infra.cost`: write docs/cost.md; with `count`, count first in a rehearsed cloud."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from infra.cost.counts import Counts
from infra.cost.page import page

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "cost.md"
_COUNTED = 100


def main(arguments: list[str]) -> None:
    """Raises: CommandFailedError where the rehearsal cannot run."""
    if arguments == ["count"]:
        from infra.local.rehearse.counting import count
        from infra.local.rehearse.run import check_tools
        from infra.local.rehearse.system import running_system

        check_tools()
        with (
            tempfile.TemporaryDirectory() as folder,
            running_system(Path(folder), lambda text: None) as system,
        ):
            stages = count(system, _COUNTED)
        Counts(f"{datetime.now(UTC):%Y-%m-%d}", _COUNTED, stages).write()
    _PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
