"""Whatever a document or an Instance holds: an answer or a named fault, soon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.dicom.edit import apply_changes, revert_changes
from shared.errors import InvalidConfigurationError
from shared.rules import compile_rulesets, parse_ruleset
from shared.rules.action_documents import ACTION_READERS
from shared.rules.claims import OPERATORS
from shared.rules.comparisons import linear_regex, searcher, wildcard
from shared.rules.condition_documents import read_conditions
from shared.rules.conditions import Plan, View
from shared.rules.moments import read_age_days, read_date, read_datetime, read_time
from shared.rules.reading import Faults
from shared.rules.sample import sample_header
from shared.rules.templates import parse_template
from tests.unit.rules.cases import KEY, facts

KEYWORDS = st.sampled_from(
    [
        "Modality",
        "PatientName",
        "PatientID",
        "StudyDate",
        "StudyTime",
        "AcquisitionDateTime",
        "PatientAge",
        "SliceThickness",
        "Rows",
        "ImageType",
        "StudyInstanceUID",
        "RequestAttributesSequence",
        "RequestAttributesSequence[*].ScheduledProcedureStepID",
        '(0031,"ACME",20)',
        "(0010,4321)",
        "PixelData",
        "SpecificCharacterSet",
        "(0002,0010)",
    ]
)
TEXT = st.text(max_size=12) | st.sampled_from(["CT", "20240203", "1.2", "a\\b", "042Y", "{", "^"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            TEXT | KEYWORDS | st.sampled_from(["type", "all", "not"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
CONDITIONS = st.recursive(
    st.builds(
        lambda tag, word, value: {tag: {word: value}},
        KEYWORDS,
        st.sampled_from(list(OPERATORS)),
        TEXT | st.integers() | st.lists(TEXT, max_size=3) | st.booleans(),
    )
    | st.builds(
        lambda tag, word, value: f'{tag} {word} "{value}"',
        KEYWORDS,
        st.sampled_from(list(OPERATORS)),
        TEXT,
    ),
    lambda inner: (
        st.builds(lambda one: {"not": one}, inner)
        | st.builds(lambda some: {"any": some}, st.lists(inner, max_size=3))
    ),
    max_leaves=4,
)
ACTION_FIELDS = st.fixed_dictionaries(
    {"type": st.sampled_from(list(ACTION_READERS))},
    optional={
        "tag": KEYWORDS,
        "from": KEYWORDS,
        "to": KEYWORDS,
        "value": TEXT | st.just("{PatientID}-{StudyDate:%Y|}") | st.integers(),
        "pattern": st.sampled_from(["private", "(?i)a+", "Pat*", "group 0010", "("]),
        "replacement": st.sampled_from(["", r"\0\0", "x", r"\1"]),
        "values": st.dictionaries(TEXT, TEXT, max_size=2),
        "tags": st.lists(KEYWORDS, max_size=3),
        "days": st.integers(-50_000, 50_000),
        "width": st.integers(-1, 2_000),
        "length": st.integers(-1, 2_000),
        "destination": TEXT,
        "per": KEYWORDS,
    },
)
ATTRIBUTES: dict[str, Any] = {
    "Modality": "CT",
    "PatientName": "山田^太郎",
    "PatientID": "P 1",
    "StudyDate": "20240203",
    "StudyTime": "1011",
    "SliceThickness": "1.5",
    "Rows": 512,
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "StudyInstanceUID": "1.2.3",
    "RequestAttributesSequence": [{"ScheduledProcedureStepID": "A"}, {}],
    '(0031,"ACME",20)': "x",
}


@contextlib.contextmanager
def only_named_faults() -> Iterator[None]:
    """A refused document is an answer; any other error is a bug."""
    with contextlib.suppress(InvalidConfigurationError):
        yield


@given(JSON)
def test_any_json_is_a_ruleset_or_refused(document: Any) -> None:
    with only_named_faults():
        parse_ruleset(document)


@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3), JSON)
def test_any_json_inside_a_ruleset_is_read_or_refused(
    conditions: Any, actions: Any, other: Any
) -> None:
    rule = {"name": "r", "conditions": conditions, "actions": actions, "destinations": other}
    with only_named_faults():
        parse_ruleset({"name": "s", "rules": [rule], "tests": other, "schedules": other})
    with only_named_faults():
        completion = {"quiet_period_s": 1, "expected_series": other}
        study = {"name": "r", "level": "study", "conditions": conditions, "completion": completion}
        parse_ruleset({"name": "s", "rules": [study], "tests": [other]})


@given(st.text(max_size=60) | st.builds(" ".join, st.lists(TEXT | KEYWORDS, max_size=8)))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    faults = Faults()
    condition = read_conditions(text, "condition", faults)
    if not len(faults):
        plan = Plan()
        View(plan, sample_header(ATTRIBUTES), facts()).attributes.values("PatientID")
        assert str(condition)


@given(CONDITIONS)
def test_a_condition_can_be_judged_and_read_again_from_its_text(document: Any) -> None:
    faults = Faults()
    condition = read_conditions(document, "condition", faults)
    if len(faults):
        return
    header = sample_header(ATTRIBUTES)
    plan = Plan()
    number = plan.number(condition)
    holds = View(plan, header, facts()).holds(number)
    again = Faults()
    reread = read_conditions(str(condition), "condition", again)
    assert list(map(str, again)) == []
    other = Plan()
    number = other.number(reread)
    assert View(other, header, facts()).holds(number) is holds


@settings(max_examples=300)
@given(st.lists(ACTION_FIELDS, max_size=3))
def test_actions_change_reversibly_or_fail_by_name(actions: list[Any]) -> None:
    document = {"name": "s", "rules": [{"name": "r", "actions": actions}]}
    try:
        program = compile_rulesets([parse_ruleset(document)], key=KEY)
    except InvalidConfigurationError:
        return
    received = sample_header(ATTRIBUTES)
    decision = program.evaluate(received, facts())
    delivered = apply_changes(received, decision.changes)
    assert revert_changes(delivered, decision.changes).data == received.data
    for failure in decision.failures:
        assert "山田" not in failure.reason
        assert "P 1" not in failure.reason


@given(st.text(max_size=80))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = parse_template(text)
    except ValueError:
        return
    with contextlib.suppress(ValueError):
        assert len(template.render(sample_header(ATTRIBUTES), facts())) <= 10_240


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    for read in (read_date, read_time, read_datetime):
        moment = read(text)
        assert moment is None or moment.low <= moment.high
    assert read_age_days(text) is None or text[-1] in "DWMY"


@given(st.from_regex(r"[ab*?]{0,8}", fullmatch=True), st.from_regex(r"[ab]{0,8}", fullmatch=True))
def test_wildcards_match_as_a_plain_matcher_does(pattern: str, text: str) -> None:
    def fits(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return fits(pattern[1:], text) or (bool(text) and fits(pattern, text[1:]))
        return bool(text) and pattern[0] in ("?", text[0]) and fits(pattern[1:], text[1:])

    assert (wildcard(pattern).fullmatch(text) is not None) == fits(pattern, text)


@given(
    st.from_regex(r"[ab1^$|]{1,8}(\\d|\\.)?[ab]?", fullmatch=True),
    st.text(st.sampled_from("ab1.\nä"), max_size=6),
)
def test_the_quick_search_agrees_with_re2(pattern: str, text: str) -> None:
    try:
        regex = linear_regex(pattern)
    except ValueError:
        return
    assert (searcher(pattern)(text) is None) == (regex.search(text) is None)
