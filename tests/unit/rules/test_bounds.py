"""No document takes unbounded time, memory or stack: it is read soon, or refused soon."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import InvalidConfigurationError
from shared.rules import check_ruleset, reading
from shared.rules.comparisons import linear_regex
from shared.rules.reading import MAX_FAULTS

MAX_MIB = 256

# What has no bound does not end by then; what has one ends in a second or two.
pytestmark = pytest.mark.timeout(300)


def rule(**fields: Any) -> dict[str, Any]:
    return {"name": "s", "rules": [{"name": "r", **fields}]}


def nested(wrap: Callable[[Any], Any], inner: Any, depth: int = 20_000) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


DOCUMENTS: dict[str, Callable[[], Any]] = {
    "deep not": lambda: rule(conditions=nested(lambda one: {"not": one}, {"Modality": "CT"})),
    "deep any": lambda: rule(conditions=nested(lambda one: {"any": [one]}, {"Modality": "CT"})),
    "deep lists": lambda: rule(conditions=nested(lambda one: [one], {"Modality": "CT"})),
    "deep long form": lambda: rule(
        conditions=nested(lambda one: {"type": "all", "conditions": [one]}, {"Modality": "CT"})
    ),
    "deep study": lambda: rule(
        level="study",
        completion={"quiet_period_s": 1},
        conditions=nested(lambda one: {"not": one}, {"Modality": "CT"}),
    ),
    "deep expected series": lambda: rule(
        level="study", completion={"expected_series": nested(lambda one: [one], {"Modality": "CT"})}
    ),
    "deep parentheses": lambda: rule(conditions="(" * 9_000 + 'Modality == "CT"'),
    "many nots": lambda: rule(conditions="not " * 2_400 + 'Modality == "CT"'),
    "many ands": lambda: rule(conditions=" and ".join(["Rows > 1"] * 800)),
    "a long text": lambda: rule(conditions="x" * 10_000_000),
    "a long number": lambda: rule(conditions=[{"Rows": 10**10_000}]),
    "a long list": lambda: rule(conditions=[{"Modality": ["CT"] * 100_000}]),
    "many conditions": lambda: rule(conditions=[{"Modality": "CT"}] * 100_000),
    "wide and deep": lambda: rule(
        conditions=nested(lambda one: {"all": [one] * 1_000}, {"Modality": "CT"}, 8)
    ),
    "many rules": lambda: {
        "name": "s",
        "rules": [{"name": str(n), "conditions": [{"Modality": "CT"}]} for n in range(100_000)],
    },
    "many faults": lambda: {
        "name": "s",
        "rules": [{"nam": str(n), "conditions": [{"Modalty": "CT"}]} for n in range(5_000)],
    },
    "a bad pattern": lambda: rule(conditions=[{"PatientName": {"regex": "(a{1000}){1000}"}}]),
    "many alternatives": lambda: rule(
        conditions=[{"PatientName": {"regex": "|".join("abcdefgh" * 50)}}]
    ),
    "many large patterns": lambda: {
        "name": "s",
        "rules": [
            {"name": str(n), "conditions": [{"PatientName": {"regex": rf"\pL{{30}}{n}"}}]}
            for n in range(5_000)
        ],
    },
    "many wild cards": lambda: rule(conditions=[{"PatientName": {"wildcard": "*a" * 4_000}}]),
    "a long template": lambda: rule(
        actions=[{"type": "set", "tag": "PatientID", "value": "{PatientID}" * 900}]
    ),
    "a wide pad": lambda: rule(actions=[{"type": "pad", "tag": "PatientID", "width": 10**9}]),
    "many actions": lambda: rule(
        actions=[{"type": "set", "tag": "PatientID", "value": "x"}] * 100_000
    ),
    "many pairs": lambda: rule(
        actions=[
            {"type": "map", "tag": "Modality", "values": {str(n): "x" for n in range(100_000)}}
        ]
    ),
    "deep attributes": lambda: {
        "name": "s",
        "rules": [],
        "tests": [
            {
                "attributes": {
                    "RequestAttributesSequence": nested(
                        lambda one: [{"RequestAttributesSequence": one}], [{}]
                    )
                }
            }
        ],
    },
    "a large attribute": lambda: {
        "name": "s",
        "rules": [],
        "tests": [{"attributes": {"ImageComments": "x" * 1_000_000}}],
    },
    "many tests": lambda: {"name": "s", "rules": [], "tests": [{}] * 100_000},
    "a far window": lambda: rule(schedule={"dates_on": ["9999-12-31"], "timezone": "Etc/GMT-14"}),
    "every matching test": lambda: {
        "name": "s",
        "execution_mode": "ALL_MATCHES",
        "rules": [
            {"name": str(n), "actions": [{"type": "suffix", "tag": "PatientID", "value": "x"}]}
            for n in range(200)
        ],
        "tests": [{"attributes": {"PatientID": "1"}}] * 20,
    },
}


@pytest.mark.parametrize("make", DOCUMENTS.values(), ids=DOCUMENTS)
def test_any_document_is_read_or_refused_soon(make: Callable[[], Any]) -> None:
    document = make()
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidConfigurationError):
            check_ruleset(document, study_rules=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_MIB << 20


def test_faults_are_named_up_to_a_number() -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        check_ruleset(DOCUMENTS["many faults"]())
    assert len(refused.value.faults) == MAX_FAULTS


@pytest.mark.parametrize(
    ("one", "path"),
    [
        ({"conditions": [{"PatientName": {"regex": "^(CT|MR)[0-9]{6}$"}}]}, "PatientName.regex"),
        (
            {"actions": [{"type": "regex_replace", "tag": "PatientID", "pattern": "^(a|b){6}"}]},
            "actions[0].pattern",
        ),
    ],
)
def test_patterns_are_bounded_all_together(
    one: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is small enough; thousands of large ones would fill hours and the memory."""
    document = {"name": "s", "rules": [{"name": str(n), **one} for n in range(5)]}
    check_ruleset(document)
    monkeypatch.setattr(reading, "MAX_PATTERN_STEPS", 50)
    with pytest.raises(InvalidConfigurationError) as refused:
        check_ruleset(document)
    (fault,) = refused.value.faults
    assert fault.path.endswith(path)
    assert "all together they are too large" in fault.message


@pytest.mark.parametrize("pattern", [r"^\p{L}{1,64}$", r"^[\p{L}' -]{1,64}\^[\p{L}' -]{1,64}$"])
def test_a_name_of_as_many_letters_as_it_may_have_is_no_large_pattern(pattern: str) -> None:
    check_ruleset(rule(conditions=[{"PatientName": {"regex": pattern}}]))


def test_patterns_that_are_wrong_are_tried_until_no_more_faults_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RE2 takes a twentieth of a second to find one too large."""
    wrong = [
        {"name": str(n), "conditions": [{"PatientName": {"regex": f"({n}"}}]} for n in range(50)
    ]
    monkeypatch.setattr(reading, "MAX_FAULTS", 5)
    before = linear_regex.cache_info().misses
    with pytest.raises(InvalidConfigurationError) as refused:
        check_ruleset({"name": "s", "rules": wrong})
    assert len(refused.value.faults) == 5
    assert linear_regex.cache_info().misses - before == 5
