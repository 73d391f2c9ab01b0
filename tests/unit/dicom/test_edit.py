"""Edits: what changes, what must not, and that every one can be replayed and taken back."""

from __future__ import annotations

import io
import struct
import time

import pydicom
import pytest

from shared.dicom.edit import HeaderEdit, InvalidEditError, apply_changes, revert_changes
from shared.dicom.header import Header
from tests.unit.dicom.builders import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    Builder,
    small_instance,
)

BY = "ruleset/rule/0"


def edit_of(*extra: bytes, builder: Builder | None = None) -> HeaderEdit:
    data = small_instance(builder or Builder(), *extra)
    return HeaderEdit(Header.parse(data, file_size=len(data)))


def finish(edit: HeaderEdit, original: Header) -> pydicom.Dataset:
    """Check what holds for any edit, then read the result with somebody else's parser."""
    header = edit.header()
    changes = edit.changes()
    assert apply_changes(original, changes).data == header.data
    assert revert_changes(header, changes).data == original.data
    data = header.data
    if header.is_deflated:  # pydicom would inflate what is inflated: name the plain syntax
        data = data.replace(DEFLATED_LE.encode(), (EXPLICIT_LE + "\0\0\0").encode())
    return pydicom.dcmread(io.BytesIO(data))


@pytest.fixture(params=[EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def builder(request: pytest.FixtureRequest) -> Builder:
    return Builder(request.param)


class TestAnyTransferSyntax:
    def test_values_are_set_added_and_deleted(self, builder: Builder) -> None:
        edit = edit_of(builder=builder)
        original = edit.header()
        edit.set("PatientID", ["NEW ID"], by=BY)
        edit.set("SeriesDescription", ["CHEST"], by=BY)
        edit.set("Rows", [512], by=BY)
        edit.set("PixelSpacing", ["0.5", "0.25"], by=BY)
        assert edit.delete("PatientName", by=BY)
        assert not edit.delete("PatientName", by=BY)
        data_set = finish(edit, original)
        assert data_set.PatientID == "NEW ID"
        assert data_set.SeriesDescription == "CHEST"
        assert data_set.Rows == 512
        assert data_set.PixelSpacing == [0.5, 0.25]
        assert "PatientName" not in data_set
        assert [change.path for change in edit.changes()] == [
            "PatientID",
            "SeriesDescription",
            "Rows",
            "PixelSpacing",
            "PatientName",
        ]

    def test_a_change_tells_before_and_after(self, builder: Builder) -> None:
        edit = edit_of(builder=builder)
        edit.set("PatientID", ["X"], by=BY)
        (change,) = edit.changes()
        assert (change.vr, change.old, change.new, change.by) == ("LO", ("ID42",), ("X",), BY)
        assert change.old_element == builder.element(0x00100020, "LO", b"ID42")
        assert change.new_element == builder.element(0x00100020, "LO", b"X ")

    @pytest.mark.parametrize("undefined", [False, True])
    def test_lengths_around_a_nested_edit_follow(self, builder: Builder, undefined: bool) -> None:
        inner = builder.sequence(
            0x00400008,
            builder.item(builder.element(0x00080100, "SH", b"CODE"), undefined=undefined),
            undefined=undefined,
        )
        sequence = builder.sequence(
            0x00400275, builder.item(inner, undefined=undefined), undefined=undefined
        )
        edit = edit_of(sequence, builder=builder)
        original = edit.header()
        path = "RequestAttributesSequence[0].ScheduledProtocolCodeSequence[0]"
        edit.set(f"{path}.CodeValue", ["A LONGER CODE"], by=BY)
        edit.set(f"{path}.CodeMeaning", ["meaning"], by=BY)
        edit.delete("RequestAttributesSequence[*].StudyDate", by=BY)
        data_set = finish(edit, original)
        code = data_set.RequestAttributesSequence[0].ScheduledProtocolCodeSequence[0]
        assert (code.CodeValue, code.CodeMeaning) == ("A LONGER CODE", "meaning")

    def test_sequences_and_items_are_made(self, builder: Builder) -> None:
        edit = edit_of(builder=builder)
        original = edit.header()
        path = "RequestAttributesSequence"
        edit.set(f"{path}[0].ScheduledProcedureStepID", ["ONE"], by=BY)
        edit.set(f"{path}[1].ScheduledProtocolCodeSequence[0].CodeValue", ["TWO"], by=BY)
        edit.set(f"{path}[*].AccessionNumber", ["A1"], by=BY)
        with pytest.raises(InvalidEditError, match="2 Items"):
            edit.set(f"{path}[3].AccessionNumber", ["A1"], by=BY)
        data_set = finish(edit, original)
        first, second = data_set.RequestAttributesSequence
        assert (first.ScheduledProcedureStepID, first.AccessionNumber) == ("ONE", "A1")
        assert second.ScheduledProtocolCodeSequence[0].CodeValue == "TWO"
        assert second.AccessionNumber == "A1"

    def test_a_private_creator_gets_a_block(self, builder: Builder) -> None:
        edit = edit_of(builder.element(0x00310010, "LO", b"OTHER "), builder=builder)
        original = edit.header()
        edit.set('(0031,"ACME",20)', ["text"], vr="LO", by=BY)
        edit.set('(0031,"ACME",21)', ["more"], vr="LO", by=BY)
        edit.set('RequestAttributesSequence[0].(0041,"ACME",01)', ["in"], vr="LO", by=BY)
        assert edit.values('(0031,"ACME",20)') in (("text",), (b"text",))
        data_set = finish(edit, original)
        assert data_set[0x00310011].value == "ACME"
        assert "(0031,1021)" not in edit
        assert "(0031,1121)" in edit
        item = data_set.RequestAttributesSequence[0]
        assert item[0x00410010].value == "ACME"
        assert 0x00411001 in item

    def test_group_lengths_stay_right(self, builder: Builder) -> None:
        group = builder.element(0x00200011, "IS", b"7 ") + builder.element(0x00200013, "IS", b"42")
        length = builder.element(0x00200000, "UL", struct.pack(builder.order + "L", len(group)))
        edit = edit_of(length, group, builder=builder)
        original = edit.header()
        edit.set("InstanceNumber", ["123456"], by=BY)
        edit.set("StudyID", ["S1"], by=BY)
        finish(edit, original)
        header = edit.header()
        size = sum(
            element.end - element.start
            for path, element in header.walk()
            if element.tag >> 16 == 0x0020 and element.tag & 0xFFFF
        )
        assert header.values("(0020,0000)") == (size,)

    def test_file_meta_follows_the_uids(self, builder: Builder) -> None:
        edit = edit_of(builder=builder)
        original = edit.header()
        edit.set("SOPInstanceUID", ["1.2.3.4.5"], by=BY)
        data_set = finish(edit, original)
        assert data_set.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4.5"
        header = edit.header()
        (length,) = struct.unpack_from("<L", header.data, 140)
        assert 144 + length == header.meta_end


class TestOddDataSets:
    def test_what_is_out_of_order_goes_back_to_its_place(self) -> None:
        builder = Builder()
        misplaced = builder.element(0x00080070, "LO", b"MAKER ")
        edit = edit_of(misplaced, builder.element(0x00200010, "SH", b"S1"))
        original = edit.header()
        edit.delete("Manufacturer", by=BY)
        edit.set("StationName", ["CT1"], by=BY)
        edit.set("StudyID", ["LONGER"], by=BY)
        edit.set("Manufacturer", ["OTHER"], by=BY)
        finish(edit, original)

    def test_a_tag_that_stands_twice_goes_twice(self) -> None:
        """Else a patient's name would survive its deletion."""
        builder = Builder()
        edit = edit_of(builder.element(0x00100010, "PN", b"Shadow^X"))
        original = edit.header()
        assert edit.text("PatientName") == "Shadow^X"
        assert edit.delete("PatientName", by=BY)
        finish(edit, original)
        assert b"Doe" not in edit.header().data
        assert b"Shadow" not in edit.header().data

    def test_a_wrong_group_length_is_wrong_again_after_a_revert(self) -> None:
        builder = Builder()
        edit = edit_of(
            builder.element(0x00200000, "UL", b"\1\0\0\0"),
            builder.element(0x00200011, "IS", b"7 "),
        )
        original = edit.header()
        edit.delete("SeriesNumber", by=BY)
        assert revert_changes(edit.header(), edit.changes()).data == original.data

    def test_un_of_undefined_length_is_edited_in_its_own_encoding(self) -> None:
        builder, implicit = Builder(), Builder(IMPLICIT_LE)
        private = builder.element(0x00290010, "LO", b"ACME") + builder.sequence(
            0x00291001,
            implicit.item(implicit.element(0x00100020, "LO", b"IN"), undefined=True),
            undefined=True,
            vr="UN",
        )
        edit = edit_of(private)
        original = edit.header()
        edit.set('(0029,"ACME",01)[0].PatientID', ["OUT!"], by=BY)
        edit.set('(0029,"ACME",01)[1].PatientID', ["SECOND"], by=BY)
        data_set = finish(edit, original)
        assert [item.PatientID for item in data_set[0x00291001].value] == ["OUT!", "SECOND"]

    def test_patterns_delete_by_the_paths_that_are_there(self) -> None:
        builder = Builder()
        edit = edit_of(
            builder.element(0x00310010, "LO", b"ACME"),
            builder.element(0x00311001, "LO", b"x "),
            builder.sequence(0x00400275, builder.item(builder.element(0x00410010, "LO", b"Y "))),
        )
        original = edit.header()
        for path in edit.paths():
            if path.last.tag >> 16 & 1:
                edit.delete(path, by=BY)
        data_set = finish(edit, original)
        assert not any(element.tag.is_private for element in data_set.iterall())


class TestManyAtOnce:
    def test_thousands_of_nested_attributes_go_in_one_pass(self) -> None:
        """An Enhanced MR has private Attributes in each of its frames' Items."""
        builder = Builder()
        frames = [
            builder.item(
                builder.sequence(
                    0x00209113,
                    builder.item(
                        builder.element(0x00200032, "DS", b"0\\0\\0 "),
                        builder.element(0x00310010, "LO", b"ACME"),
                        builder.element(0x00311001, "LO", b"secret"),
                    ),
                    undefined=bool(number % 2),
                ),
                builder.element(0x00310010, "LO", b"ACME"),
            )
            for number in range(3000)
        ]
        edit = edit_of(
            builder.element(0x00310010, "LO", b"ACME"), builder.sequence(0x52009230, *frames)
        )
        original = edit.header()
        private = [path for path in edit.paths() if path.last.tag >> 16 & 1]
        started_s = time.thread_time()
        assert edit.delete_all(private, by=BY) == 9001
        assert time.thread_time() - started_s < 30  # of this thread alone
        data_set = finish(edit, original)
        assert [change.path for change in edit.changes()] == [
            "(0031,0010)",
            "PerFrameFunctionalGroupsSequence",
        ]
        assert not any(element.tag.is_private for element in data_set.iterall())
        assert len(data_set.PerFrameFunctionalGroupsSequence) == 3000

    def test_what_went_with_its_sequence_is_gone(self) -> None:
        builder = Builder()
        edit = edit_of(
            builder.sequence(0x00400275, builder.item(builder.element(0x00400009, "SH", b"STEP")))
        )
        original = edit.header()
        paths = [path for path in edit.paths() if path.steps[0].tag == 0x00400275]
        assert edit.delete_all(paths, by=BY) == 2
        assert "RequestAttributesSequence" not in finish(edit, original)


class TestCharacterSets:
    JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"

    def test_a_japanese_name_stays_readable(self) -> None:
        builder = Builder()
        data = builder.file(
            builder.element(0x00080005, "CS", b"\\ISO 2022 IR 87"),
            builder.element(0x00100010, "PN", self.JAPANESE + b" "),
            builder.element(0x00100020, "LO", b"ID"),
        )
        original = Header.parse(data, file_size=len(data))
        edit = HeaderEdit(original)
        edit.set("PatientID", ["X"], by=BY)
        edit.set("OtherPatientNames", ["山田^花子"], by=BY)
        data_set = finish(edit, original)
        assert data_set.PatientName == "Yamada^Tarou=山田^太郎"
        assert data_set.OtherPatientNames == "山田^花子"
        assert data_set.SpecificCharacterSet == ["", "ISO 2022 IR 87"]

    def test_text_that_the_set_lacks_turns_everything_to_utf_8(self) -> None:
        builder = Builder()
        inner = builder.sequence(
            0x00400275,
            builder.item(builder.element(0x00321060, "LO", "Schädel ".encode("latin-1"))),
        )
        edit = edit_of(
            builder.element(0x00101040, "LO", "Überall ".encode("latin-1")),
            inner,
            builder.element(0x00080005, "CS", b"ISO_IR 100"),
        )
        original = edit.header()
        edit.set("PatientName", ["山田^太郎"], by=BY)
        data_set = finish(edit, original)
        assert data_set.SpecificCharacterSet == "ISO_IR 192"
        assert data_set.PatientName == "山田^太郎"
        assert data_set.PatientAddress == "Überall"
        item = data_set.RequestAttributesSequence[0]
        assert item.RequestedProcedureDescription == "Schädel"
        assert len(edit.changes()) == 4

    def test_setting_the_character_set_re_encodes_text(self) -> None:
        builder = Builder()
        edit = edit_of(builder.element(0x00101040, "LO", "Überall ".encode("latin-1")))
        original = edit.header()
        edit.set("SpecificCharacterSet", ["ISO_IR 192"], by=BY)
        data_set = finish(edit, original)
        assert data_set.PatientAddress == "Überall"
        edit.set("SpecificCharacterSet", ["ISO_IR 100"], by=BY)
        assert finish(edit, original).PatientAddress == "Überall"
        with pytest.raises(InvalidEditError, match="defined term"):
            edit.set("SpecificCharacterSet", ["LATIN"], by=BY)
        with pytest.raises(InvalidEditError, match="asked for"):
            edit.set("SpecificCharacterSet", ["ISO_IR 13"], by=BY)
        with pytest.raises(InvalidEditError):
            edit.delete("SpecificCharacterSet", by=BY)
        assert len(edit.changes()) == 4


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "value", "rule"),
        [
            ("PatientID", "x" * 65, "64 characters"),
            ("PatientID", "a\\b", "backslash"),
            ("PatientID", "a\nb", "control"),
            ("Modality", "ct", "capital letters"),
            ("StudyDate", "20260231", "calendar"),
            ("StudyDate", "2026-02-01", "YYYYMMDD"),
            ("StudyTime", "2560", "HHMMSS"),
            ("AcquisitionDateTime", "20261301", "YYYYMMDDHHMMSS"),
            ("SliceThickness", "1.23456789012345678", "16 characters"),
            ("SliceThickness", "thick", "decimal"),
            ("InstanceNumber", "2147483648", "2\\^31"),
            ("InstanceNumber", "1.5", "integer"),
            ("SOPInstanceUID", "1.02.3", "leading zeros"),
            ("SOPInstanceUID", "1." + "2" * 63, "64"),
            ("PatientAge", "42", "nnnY"),
            ("PatientName", "a=b=c=d", "component groups"),
            ("Rows", "70000", "range of US"),
            ("Rows", "many", "integer"),
            ("RetrieveAETitle", "A" * 17, "16"),
            ("RequestAttributesSequence", "x", "SQ takes no Values"),
            ("FrameIncrementPointer", "x", "tag"),
        ],
    )
    def test_a_value_that_breaks_its_vr(self, path: str, value: str, rule: str) -> None:
        """The message names Attribute and rule; the Value may be a patient's and is not in it."""
        edit = edit_of()
        with pytest.raises(InvalidEditError, match=rule) as caught:
            edit.set(path, [value], by=BY)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(value) < 5 or value not in str(caught.value)
        assert edit.changes() == ()

    @pytest.mark.parametrize(
        "path",
        ["TransferSyntaxUID", "PixelData", "(0008,0000)", "(0031,1001)", "DataSetTrailingPadding"],
    )
    def test_what_is_not_for_editing(self, path: str) -> None:
        with pytest.raises(InvalidEditError):
            edit_of().set(path, ["1"], by=BY)

    def test_a_failed_edit_changes_nothing(self) -> None:
        """Here a private block is reserved before the Value proves wrong."""
        edit = edit_of()
        before = edit.header().data
        with pytest.raises(InvalidEditError):
            edit.set('(0031,"ACME",20)', ["\n"], vr="LO", by=BY)
        assert edit.header().data == before
        assert edit.changes() == ()

    def test_changes_of_another_header_are_refused(self) -> None:
        edit = edit_of()
        edit.set("PatientID", ["X"], by=BY)
        with pytest.raises(ValueError, match="not what the change was made from"):
            apply_changes(edit.header(), edit.changes())
