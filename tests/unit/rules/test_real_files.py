"""Rules on real Instances: what is not asked for keeps its bytes, and all can be taken back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from shared.dicom.edit import apply_changes, revert_changes
from shared.dicom.header import Header
from shared.errors import AxiomError
from shared.rules import Program, compile_rulesets, parse_ruleset
from shared.rules.explain import as_document, explain
from tests.unit.rules.cases import KEY, facts

WHEEL = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "rtplan.dcm", "waveform_ecg.dcm")

RULES: list[dict[str, Any]] = [
    {"actions": [{"type": "set", "tag": "StationName", "value": "AXIOM"}]},
    {"actions": [{"type": "prepend", "tag": "PatientID", "value": "002-"}]},
    {"actions": [{"type": "upper", "tag": "PatientName"}]},
    {"actions": [{"type": "delete", "pattern": ["private", "curves"]}]},
    {"actions": [{"type": "set", "tag": '(0031,"ACME",20)', "value": "tag", "vr": "LO"}]},
    {"actions": [{"type": "set_if_missing", "tag": "InstitutionName", "value": "山田 clinic"}]},
    {"actions": [{"type": "new_uid", "tags": ["SOPInstanceUID", "StudyInstanceUID"]}]},
    {"actions": [{"type": "hash", "tag": "AccessionNumber"}]},
    {"actions": [{"type": "shift", "days": -10, "tags": ["StudyDate", "SeriesDate"]}]},
    {"actions": [{"type": "copy", "from": "StudyDescription", "to": "StudyComments"}]},
    {
        "conditions": ["ReferencedStudySequence exists"],
        "actions": [
            {"type": "new_uid", "tag": "ReferencedStudySequence[*].ReferencedSOPInstanceUID"}
        ],
    },
    {
        "conditions": ["not Modality empty"],
        "destinations": ["a", {"name": "b", "actions": [{"type": "delete", "tag": "PatientID"}]}],
    },
]


def program() -> Program:
    named = [{"name": f"r{number}", **rule} for number, rule in enumerate(RULES)]
    document = {"name": "s", "execution_mode": "ALL_MATCHES", "rules": named}
    return compile_rulesets([parse_ruleset(document)], key=KEY)


def header_of(path: Path) -> Header | None:
    data = path.read_bytes()
    try:
        header = Header.parse(data, file_size=len(data))
        list(header.walk())
    except AxiomError:
        return None
    return header


def check(compiled: Program, header: Header) -> None:
    decision = compiled.evaluate(header, facts())
    for changes in (decision.changes, *(planned.changes for planned in decision.deliveries)):
        delivered = apply_changes(header, changes)
        assert revert_changes(delivered, changes).data == header.data
        check_rest(header, delivered, {change.path for change in changes})
    assert as_document(explain(compiled, header, facts()))["verdict"] == decision.verdict


def check_rest(received: Header, delivered: Header, touched: set[str]) -> None:
    """Every Data Element outside the changed ones has its bytes, unless its text was recoded."""
    before, after = dict(elements(received)), dict(elements(delivered))
    for path in before.keys() - touched:
        assert after.get(path) == before[path]
    assert after.keys() - before.keys() <= touched


def elements(header: Header) -> Iterator[tuple[str, bytes]]:
    """The top-level Data Elements but Sequences and group lengths."""
    for path, element in header.walk():
        if len(path.steps) == 1 and element.vr != "SQ" and path.last.tag & 0xFFFF:
            yield str(path), header.data[element.start : element.value_end]


@pytest.mark.parametrize("name", WHEEL)
def test_changes_replay_and_revert_and_pydicom_reads_the_result(name: str) -> None:
    header = header_of(Path(str(get_testdata_file(name))))
    assert header is not None
    compiled = program()
    check(compiled, header)
    delivered = apply_changes(header, compiled.evaluate(header, facts()).changes)
    reread = dcmread(io.BytesIO(delivered.data), stop_before_pixels=True, force=True)
    assert reread.StationName == "AXIOM"
    assert reread.SOPInstanceUID.startswith("2.25.")
    assert reread.file_meta.MediaStorageSOPInstanceUID == reread.SOPInstanceUID


def test_every_file_of_the_corpus(corpus: Path) -> None:
    compiled = program()
    count = 0
    for path in sorted((corpus / "files").rglob("*")):
        header = header_of(path) if path.is_file() else None
        if header is not None:
            check(compiled, header)
            count += 1
    assert count > 250
