"""How many tests of its port's contract each adapter has passed: printed at the end of a run.

A plugin, and no conftest of tests/contract, because with pytest-xdist the process that prints does
not collect.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from _pytest.terminal import TerminalReporter

_CONTRACT = re.compile(r"(?:.*/)?tests/contract/test_(\w+)\.py::.*\[([a-z_]+)[\]-]")
_OUTCOMES = ("passed", "failed", "error", "skipped")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """One line for each adapter of each port, if any was tested."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for outcome in _OUTCOMES:
        for report in terminalreporter.stats.get(outcome, ()):
            found = _CONTRACT.match(getattr(report, "nodeid", ""))
            if found is not None:
                counts[found[1], found[2]][outcome] += 1
    if not counts:
        return
    terminalreporter.section("contract tests by adapter")
    for (port, adapter), outcomes in sorted(counts.items()):
        shown = ", ".join(f"{outcomes[one]} {one}" for one in _OUTCOMES if outcomes[one])
        terminalreporter.write_line(f"{port:16} {adapter:32} {shown}")
