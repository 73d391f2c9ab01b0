"""Whatever is edited in whatever real file: exact replay, exact revert, nothing else touched."""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.dicom.edit import HeaderEdit, InvalidEditError, apply_changes, revert_changes
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.dicom.values import Value
from shared.errors import AxiomError
from tests.unit.dicom.real_files import header_of, name_of, readable_files
from tests.unit.dicom.test_header_against_pydicom import PYDICOM_DIFFERS, differences

SETTINGS = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

# pydicom itself cannot read these to their end, edited or not.
UNREADABLE_BY_PYDICOM = ("FreezePattern.dcm", "GH364.dcm", "too_short.dcm", "GH179", "BigEndian_un")

NEW_VALUES: tuple[tuple[str, tuple[Value, ...]], ...] = (
    ("PatientID", ("NEW ID",)),
    ("PatientName", ("Doe^John",)),
    ("PatientName", ("山田^太郎",)),
    ("SeriesDescription", ("Schädel",)),
    ("ImageComments", ("long text " * 30,)),
    ("Rows", (512,)),
    ("PixelSpacing", ("0.5", "0.25")),
    ("SOPInstanceUID", ("1.2.3.45",)),
    ("StudyDate", ("20260102",)),
    ("InstitutionName", ()),
    ("SpecificCharacterSet", ("ISO_IR 192",)),
    ("RequestAttributesSequence[0].ScheduledProcedureStepID", ("STEP",)),
    ("RequestAttributesSequence[0].ScheduledProtocolCodeSequence[0].CodeValue", ("CODE",)),
    ("ReferencedStudySequence[*].ReferencedSOPInstanceUID", ("1.2.3",)),
    ('(0031,"ACME",20)', ("private",)),
)

# An int deletes the path of that number, counted round; a negative one deletes every n-th path.
Operation = tuple[str, tuple[Value, ...]] | int
edits = st.lists(
    st.one_of(st.sampled_from(NEW_VALUES), st.integers(0, 10_000), st.integers(-9, -2)),
    min_size=1,
    max_size=8,
)


def make(edit: HeaderEdit, operations: Sequence[Operation]) -> None:
    """Make the edits; one that the Standard refuses is no edit."""
    for operation in operations:
        with suppress(InvalidEditError):
            if isinstance(operation, int):
                paths = list(edit.paths())
                if operation < 0:
                    edit.delete_all(paths[::operation], by="test")
                elif paths:
                    edit.delete(paths[operation % len(paths)], by="test")
            else:
                path, values = operation
                edit.set(path, values, by="test")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@given(path=st.sampled_from(readable_files()), operations=edits)
@SETTINGS
def test_changes_replay_and_revert_byte_for_byte(path: Path, operations: list[Operation]) -> None:
    original = header_of(path)
    edit = HeaderEdit(original)
    make(edit, operations)
    edited = edit.header()
    assert_as_read_anew(edited, original)
    assert apply_changes(original, edit.changes()).data == edited.data
    assert revert_changes(edited, edit.changes()).data == original.data


@given(path=st.sampled_from(readable_files()), operations=edits)
@SETTINGS
def test_only_what_a_change_names_has_other_bytes(path: Path, operations: list[Operation]) -> None:
    """Group lengths apart; what is inside a changed Sequence is compared by the next test."""
    original = header_of(path)
    edit = HeaderEdit(original)
    make(edit, operations)
    named = {AttributePath.parse(change.path).steps[0].tag for change in edit.changes()}
    assert untouched(original, named) == untouched(edit.header(), named)


@given(path=st.sampled_from(readable_files()), operations=edits)
@SETTINGS
def test_pydicom_reads_the_edited_file_as_we_do(path: Path, operations: list[Operation]) -> None:
    is_known = name_of(path) in PYDICOM_DIFFERS
    if is_known or any(name in path.name for name in UNREADABLE_BY_PYDICOM):
        return
    original = header_of(path)
    if original.is_deflated:
        return
    edit = HeaderEdit(original)
    make(edit, operations)
    header = edit.header()
    body = path.read_bytes()[original.body_offset :]
    theirs = pydicom.dcmread(io.BytesIO(header.data + body))
    assert list(differences(header.data_set, theirs)) == []
    assert list(differences(header.meta, theirs.file_meta)) == []


@pytest.mark.peer("dcmtk")
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump is not installed")
def test_dcmdump_passes_what_it_passed_before(tmp_path: Path) -> None:
    """Every fifth file, with edits of every kind at once."""
    operations: list[Operation] = [*NEW_VALUES, 7, 11]
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    for number, path in enumerate(readable_files()[::5]):
        original = header_of(path)
        if original.is_deflated:
            continue
        edit = HeaderEdit(original)
        make(edit, operations)
        data = path.read_bytes()
        (before / f"{number}").write_bytes(data)
        (after / f"{number}").write_bytes(edit.header().data + data[original.body_offset :])
    worse = dumped_with_error(after) - dumped_with_error(before)
    assert {name_of(readable_files()[::5][int(number)]) for number in worse} == set()


@given(
    path=st.sampled_from([path for path in readable_files() if path.stat().st_size < 60_000]),
    damage=st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 60_000)),
    operations=edits,
)
@settings(SETTINGS, max_examples=250)
def test_damaged_files_raise_our_errors_alone(
    path: Path, damage: list[tuple[int, int]], cut: int | None, operations: list[Operation]
) -> None:
    data = bytearray(path.read_bytes()[:cut])
    header_size = min(len(data), header_of(path).body_offset)
    for position, byte in damage:
        if header_size:
            data[position % header_size] = byte
    with suppress(AxiomError):
        header = Header.parse(bytes(data), file_size=len(data))
        has_even_lengths = Header.parse(header.data, body_size=0).data_set.has_even_lengths()
        for attribute, element in header.walk():
            if element.vr != "SQ":
                header.values(attribute)
                assert not has_even_lengths or (element.value_end - element.value_start) % 2 == 0
        edit = HeaderEdit(header)
        make(edit, operations)
        assert_as_read_anew(edit.header(), header)
        assert apply_changes(header, edit.changes()).data == edit.header().data
        assert revert_changes(edit.header(), edit.changes()).data == header.data


def assert_as_read_anew(edited: Header, original: Header) -> None:
    """The index of an edited Header, most of which is not read, is that of its bytes."""
    read = original.with_data(edited.data)
    assert (edited.meta_end, edited.body_offset) == (read.meta_end, read.body_offset)
    assert edited.transfer_syntax_uid == read.transfer_syntax_uid
    for ours, theirs in ((edited.meta, read.meta), (edited.data_set, read.data_set)):
        assert (ours.start, ours.end, ours.is_in_order) == (
            theirs.start,
            theirs.end,
            theirs.is_in_order,
        )
        assert list(ours.entries.items()) == list(theirs.entries.items())
    assert places(edited) == places(read)


def places(header: Header) -> list[tuple[object, ...]]:
    """Each Data Element with its path, VR and offsets."""
    return [
        (path, one.vr, one.encoded_vr, one.start, one.value_start, one.value_end, one.end)
        for path, one in header.walk()
    ]


def untouched(header: Header, named: set[int]) -> list[bytes]:
    """The bytes of each top-level Data Element that no Change names, in their order."""
    return [
        header.data[entry.start : entry.end]
        for data_set in (header.meta, header.data_set)
        for tag, entry in data_set.occurrences()
        if tag not in named and tag & 0xFFFF
    ]


def dumped_with_error(folder: Path) -> set[str]:
    """The names of the files that dcmdump complains about."""
    failed = set()
    for path in folder.iterdir():
        done = subprocess.run(
            ["dcmdump", "--quiet", str(path)], capture_output=True, check=False, timeout=60
        )
        if done.returncode or b"E: " in done.stderr:
            failed.add(path.name)
    return failed
