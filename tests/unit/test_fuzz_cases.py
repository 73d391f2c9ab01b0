"""What fuzzing found, and its seeds, through every target again: no parser falls over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

_FOUND = Path(__file__).resolve().parents[1] / "fuzz" / "found"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_was_found_brings_a_parser_down(name: str) -> None:
    """`python -m tests.fuzz` finds more; a case that once fell stays below tests/fuzz/found."""
    target = TARGETS[name]
    for case in (b"", *target.seeds()):
        target.run(case)
    for path in sorted((_FOUND / name).glob("*")):
        target.run(path.read_bytes())


def test_every_case_belongs_to_a_target() -> None:
    assert {path.name for path in _FOUND.glob("*")} <= {*TARGETS}
