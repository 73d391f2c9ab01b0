"""Original Attributes Sequence as PS3.3 C.12.1 says, read by pydicom."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone

import pydicom
import pytest

from shared.dicom.changes import Change
from shared.dicom.edit import HeaderEdit, apply_changes, revert_changes
from shared.dicom.header import Header
from shared.dicom.original_attributes import original_attributes_change
from tests.unit.dicom.builders import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    Builder,
    small_instance,
)

AT = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)


def change_of(header: Header, edit: HeaderEdit, source: str = "MODALITY1") -> Change | None:
    return original_attributes_change(
        header,
        edit.changes(),
        modifying_system="AXIOM",
        source=source,
        reason="COERCE",
        at=AT,
    )


def read(header: Header, edit: HeaderEdit, *more: Change) -> pydicom.Dataset:
    changes = (*edit.changes(), *more)
    edited = apply_changes(header, changes)
    assert revert_changes(edited, changes).data == header.data
    return pydicom.dcmread(io.BytesIO(edited.data))


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_previous_values_stand_under_their_own_tags(syntax: str) -> None:
    builder = Builder(syntax)
    header = Header.parse(small_instance(builder))
    edit = HeaderEdit(header)
    edit.set("PatientID", ["FIRST"], by="r/1/0")
    edit.set("PatientID", ["SECOND"], by="r/1/1")
    edit.set("SeriesDescription", ["added"], by="r/1/2")
    edit.delete("PatientName", by="r/1/3")
    edit.set("SOPInstanceUID", ["1.2.3"], by="r/1/4")
    change = change_of(header, edit)
    assert change is not None
    assert (change.path, change.by) == ("OriginalAttributesSequence", "original-attributes")
    data_set = read(header, edit, change)
    (item,) = data_set[0x04000561].value
    assert item.AttributeModificationDateTime == "20260304050607.000890+0000"
    assert item.ModifyingSystem == "AXIOM"
    assert item.SourceOfPreviousValues == "MODALITY1"
    assert item.ReasonForTheAttributeModification == "COERCE"
    (modified,) = item[0x04000550].value
    assert [element.keyword for element in modified] == [
        "SOPInstanceUID",
        "PatientName",
        "PatientID",
    ]
    assert modified.PatientID == "ID42"
    assert modified.PatientName == "Doe^Jane"


def test_what_was_told_before_is_kept() -> None:
    builder = Builder()
    earlier = builder.sequence(
        0x04000561, builder.item(builder.element(0x04000565, "CS", b"CORRECT ")), undefined=True
    )
    header = Header.parse(small_instance(builder, earlier))
    edit = HeaderEdit(header)
    edit.set("PatientID", ["NEW"], by="r/1/0")
    change = change_of(header, edit)
    assert change is not None
    items = read(header, edit, change)[0x04000561].value
    assert [item.ReasonForTheAttributeModification for item in items] == ["CORRECT", "COERCE"]


def test_additions_alone_leave_nothing_to_tell() -> None:
    header = Header.parse(small_instance(Builder()))
    edit = HeaderEdit(header)
    edit.set("SeriesDescription", ["added"], by="r/1/0")
    assert change_of(header, edit) is None


def test_a_value_set_back_was_not_modified() -> None:
    header = Header.parse(small_instance(Builder()))
    edit = HeaderEdit(header)
    edit.set("PatientID", ["OTHER"], by="r/1/0")
    edit.set("PatientID", ["ID42"], by="r/1/1")
    assert change_of(header, edit) is None


def test_old_text_stays_readable_when_the_character_set_changes() -> None:
    """Its Item names the old set; text that says what it said before is not in it."""
    builder = Builder()
    header = Header.parse(
        builder.file(
            builder.element(0x00080005, "CS", b"ISO_IR 100"),
            builder.element(0x00100010, "PN", "Müller".encode("latin-1")),
            builder.element(0x00101040, "LO", "Überall ".encode("latin-1")),
            builder.element(0x7FE00010, "OW", b"\0\0"),
        )
    )
    edit = HeaderEdit(header)
    edit.set("PatientName", ["山田^太郎"], by="r/1/0")
    change = change_of(header, edit)
    assert change is not None
    data_set = read(header, edit, change)
    (modified,) = data_set[0x04000561].value[0][0x04000550].value
    assert (data_set.PatientName, data_set.PatientAddress) == ("山田^太郎", "Überall")
    assert modified.SpecificCharacterSet == "ISO_IR 100"
    assert modified.PatientName == "Müller"
    assert "PatientAddress" not in modified


def test_a_nested_change_keeps_its_whole_sequence() -> None:
    builder = Builder()
    sequence = builder.sequence(
        0x00400275,
        builder.item(builder.element(0x00400009, "SH", b"STEP"), undefined=True),
        undefined=True,
    )
    header = Header.parse(small_instance(builder, sequence))
    edit = HeaderEdit(header)
    edit.set("RequestAttributesSequence[0].ScheduledProcedureStepID", ["OTHER"], by="r/1/0")
    change = change_of(header, edit, source="")
    assert change is not None
    (item,) = read(header, edit, change)[0x04000561].value
    assert item.SourceOfPreviousValues == ""
    previous = item[0x04000550].value[0].RequestAttributesSequence
    assert previous[0].ScheduledProcedureStepID == "STEP"


def test_a_private_value_comes_with_its_creator() -> None:
    builder = Builder()
    header = Header.parse(
        small_instance(
            builder,
            builder.element(0x00310010, "LO", b"ACME"),
            builder.element(0x00311001, "LO", b"secret"),
        )
    )
    edit = HeaderEdit(header)
    edit.delete('(0031,"ACME",01)', by="r/1/0")
    change = change_of(header, edit)
    assert change is not None
    (modified,) = read(header, edit, change)[0x04000561].value[0][0x04000550].value
    assert modified[0x00310010].value == "ACME"
    assert modified[0x00311001].value == "secret"


def test_times_are_written_in_utc() -> None:
    header = Header.parse(small_instance(Builder()))
    edit = HeaderEdit(header)
    edit.set("PatientID", ["NEW"], by="r/1/0")
    change = original_attributes_change(
        header,
        edit.changes(),
        modifying_system="Größe\\" + "x" * 80,
        source="",
        reason="CORRECT",
        at=datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))),
    )
    assert change is not None
    (item,) = read(header, edit, change)[0x04000561].value
    assert item.AttributeModificationDateTime == "20251231230000.000000+0000"
    assert item.ModifyingSystem == "Gr??e/" + "x" * 58
