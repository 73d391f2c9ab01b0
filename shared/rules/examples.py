"""The `tests:` beside the rules: an Instance or a Study as written down, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from shared.dicom.header import Header
from shared.dicom.standardized import Standardized
from shared.rules.decision import Facts, Verdict
from shared.rules.reading import Faults, Fields, kind_of, read_attribute
from shared.rules.sample import sample_header
from shared.rules.uids import sop_class_uids, transfer_syntax_uids

# When the Instances of tests arrive, unless they say otherwise.
STANDARD_TIME: Final = datetime(2026, 1, 7, 12, 0, tzinfo=UTC)
MAX_INSTANCES: Final = 1_000
_VERDICTS: Final = {verdict.value: verdict for verdict in Verdict}
# By the names of the engine, and by those that `axiom studies` shows.
_STATES: Final = {
    "waiting": "waiting",
    "collecting": "waiting",
    "complete": "complete",
    "timed out": "timed out",
    "timed_out": "timed out",
}


# The rows of a crosswalk map that a test brings along: the values to match, and the outputs.
Rows = tuple[tuple[Mapping[str, str], Mapping[str, str]], ...]


class Expected(Struct, frozen=True):
    """What must come out; None where the test does not say.

    `changes` holds the final text of every Attribute that is changed, None for a deleted one.
    """

    matched: tuple[str, ...] | None = None  # names of rules, without the ruleset's
    destinations: tuple[str, ...] | None = None
    changes: Mapping[str, str | None] | None = None
    changes_for: Mapping[str, Mapping[str, str | None]] | None = None  # by destination
    verdict: Verdict | None = None
    failures: tuple[str, ...] | None = None  # names of rules
    refused: bool | None = None  # by the stage `reception`
    high_priority: bool | None = None
    # UIDs by destination, "" for the one that it came in.
    transfer_syntaxes: Mapping[str, str] | None = None
    state: str | None = None  # of a study rule: waiting, complete, timed out


class ExampleInstance(Struct, frozen=True):
    """One Instance of a test."""

    header: Header
    facts: Facts
    expected: Expected


class Example(Struct, frozen=True):
    """One test: Instances in the order of arrival, and what study rules say at the end.

    `after_s` is how long after the last arrival they are asked.
    """

    name: str
    instances: tuple[ExampleInstance, ...]
    studies: Mapping[str, Expected]  # by the name of the rule
    after_s: int = 0
    forced: bool = False
    execution_mode: str = ""  # instead of the ruleset's
    crosswalk: Mapping[str, Rows] | None = None


def read_example(document: Any, path: str, faults: Faults) -> Example:
    """One entry of `tests:`; docs/rules.md shows its form."""
    fields = Fields(document, path, faults)
    name = fields.text("name", path)
    if fields.has("instances"):
        instances = tuple(
            _read_instance(Fields(item, at, faults))
            for at, item in fields.items("instances", MAX_INSTANCES)
        )
    else:
        instances = (_read_instance(fields, closes=False),)
    studies = {
        rule: _read_expected(Fields(item, at, faults), closes=True)
        for at, rule, item in fields.pairs("studies")
    }
    modes = {"": "", "FIRST_MATCH": "FIRST_MATCH", "ALL_MATCHES": "ALL_MATCHES"}
    example = Example(
        name=name,
        instances=instances,
        studies=studies,
        after_s=fields.integer("after_s", 0, 0, 30 * 86_400),
        forced=fields.flag("forced", False),
        execution_mode=fields.choice("execution_mode", modes, ""),
        crosswalk=_read_crosswalk(fields) if fields.has("crosswalk") else None,
    )
    fields.close()
    return example


def _read_instance(fields: Fields, *, closes: bool = True) -> ExampleInstance:
    faults = fields.faults
    attributes = {keyword: value for _, keyword, value in fields.pairs("attributes")}
    try:
        header = sample_header(attributes)
    except (ValueError, TypeError, AttributeError) as error:
        fields.fault("attributes", str(error))
        header = sample_header({})
    facts = read_facts(Fields(fields.raw("facts", {}), fields.at("facts"), faults), header)
    expected = _read_expected(Fields(fields.raw("expect", {}), fields.at("expect"), faults), True)
    if closes:
        fields.close()
    return ExampleInstance(header, facts, expected)


def read_facts(fields: Fields, header: Header) -> Facts:
    """Facts as a test, or whoever tries a rule out, writes them down; what is left out is usual."""
    received_at = STANDARD_TIME
    if fields.has("received_at"):
        try:
            received_at = datetime.fromisoformat(fields.text("received_at"))
        except ValueError:
            fields.fault("received_at", "must be a time such as 2026-01-07T12:00:00Z")
        if received_at.tzinfo is None:
            fields.fault("received_at", "needs an offset from UTC, or Z")
            received_at = STANDARD_TIME
    facts = Facts(
        source_type=fields.text("source_type", "dimse"),
        source_name=_fact(fields, "test", "source_name", "listener", "source"),
        calling_ae_title=_fact(fields, "TEST", "calling_ae", "calling_ae_title"),
        called_ae_title=_fact(fields, "AXIOM", "called_ae", "called_ae_title"),
        peer_address=fields.text("peer_address", "127.0.0.1"),
        transfer_syntax_uid=_uid(
            fields, transfer_syntax_uids, "transfer_syntax", "transfer_syntax_uid"
        )
        or header.transfer_syntax_uid,
        sop_class_uid=_uid(fields, sop_class_uids, "sop_class", "sop_class_uid")
        or header.text("SOPClassUID")
        or "1.2",
        size=fields.integer("size", len(header.data), 0, 1 << 50),
        received_at=received_at,
        returned=fields.flag("returned", False),
        standardized=_read_standardized(fields),
    )
    fields.close()
    return facts


def _fact(fields: Fields, default: str, *names: str) -> str:
    """A fact by any of the names that conditions know it by."""
    given = [name for name in names if fields.has(name)]
    for other in given[1:]:
        fields.fault(other, f"is the same as {given[0]}")
    return fields.text(given[0]) if given else default


def _uid(fields: Fields, read: Callable[[str], tuple[str, ...]], *names: str) -> str:
    """A UID, also by its name; "" if it is not said."""
    said = _fact(fields, "", *names)
    if not said:
        return ""
    key = next(name for name in names if fields.has(name))
    try:
        uids = read(said)
    except ValueError as error:
        fields.fault(key, str(error))
        return said
    if len(uids) > 1:
        fields.fault(key, "stands for several; one Instance has one")
    return uids[0]


def _read_standardized(fields: Fields) -> Mapping[str, Standardized]:
    """What standardizers say: `standardized: {body-parts: {BodyPartExamined: TSPINE}}`."""
    answers = {}
    for path, name, edits in fields.pairs("standardized"):
        told = []
        for at, attribute, value in Fields({name: edits}, path, fields.faults).pairs(name):
            if not isinstance(value, str):
                fields.faults.add(at, f"must be text, not {kind_of(value)}", "put it in quotes")
                continue
            told.append((str(read_attribute(attribute, at, fields.faults)), (value,)))
        answers[name] = Standardized(name, tuple(told))
    return answers


def _read_expected(fields: Fields, closes: bool) -> Expected:
    expected = Expected(
        matched=_names(fields, "matched"),
        destinations=_names(fields, "destinations"),
        changes=_changes(fields, "changes") if fields.has("changes") else None,
        changes_for={
            name: _changes(Fields({name: item}, fields.at("changes_for"), fields.faults), name)
            for _, name, item in fields.pairs("changes_for")
        },
        verdict=fields.choice("verdict", _VERDICTS) if fields.has("verdict") else None,
        failures=_names(fields, "failures"),
        refused=fields.flag("refused", False) if fields.has("refused") else None,
        high_priority=fields.flag("high_priority", False) if fields.has("high_priority") else None,
        transfer_syntaxes=_transfer_syntaxes(fields),
        state=fields.choice("state", _STATES) if fields.has("state") else None,
    )
    if closes:
        fields.close()
    return expected


def _names(fields: Fields, key: str) -> tuple[str, ...] | None:
    return fields.texts(key) if fields.has(key) else None


def _changes(fields: Fields, key: str) -> dict[str, str | None]:
    changes: dict[str, str | None] = {}
    for path, name, value in fields.pairs(key):
        if value is not None and not isinstance(value, str):
            fields.faults.add(path, f"must be text, or null if deleted, not {kind_of(value)}")
            continue
        read_attribute(name, path, fields.faults)
        changes[name] = value
    return changes


def _transfer_syntaxes(fields: Fields) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for path, destination, name in fields.pairs("transfer_syntaxes"):
        try:
            uids = transfer_syntax_uids(name) if name else ("",)
        except (ValueError, TypeError):
            uids = ()
        if len(uids) != 1:
            fields.faults.add(path, "must be one Transfer Syntax, or empty for the received one")
        found[destination] = "".join(uids[:1])
    return found


def _read_crosswalk(fields: Fields) -> Mapping[str, Rows]:
    maps: dict[str, Rows] = {}
    for path, name, rows in fields.pairs("crosswalk"):
        table: list[tuple[Mapping[str, str], Mapping[str, str]]] = []
        for at, row in Fields({name: rows}, path, fields.faults).items(name):
            inner = Fields(row, at, fields.faults)
            keys = {column: str(value) for _, column, value in inner.pairs("match")}
            outputs = {column: str(value) for _, column, value in inner.pairs("row")}
            inner.close()
            table.append((keys, outputs))
        maps[name] = tuple(table)
    return maps
