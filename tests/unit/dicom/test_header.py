"""The header engine against bytes whose meaning is spelled out here."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import pytest

from shared.dicom.data_set import HasItemsError
from shared.dicom.header import Header, HeaderIncompleteError, read_header
from shared.errors import (
    AxiomError,
    MalformedHeaderError,
    NotDicomError,
    TruncatedInstanceError,
)
from tests.unit.dicom.builders import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    SOP_INSTANCE_UID,
    UNDEFINED,
    Builder,
    BytesReader,
    small_instance,
)

SYNTAXES = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, "1.2.840.10008.1.2.4.90")


@pytest.fixture(params=SYNTAXES)
def builder(request: pytest.FixtureRequest) -> Builder:
    return Builder(request.param)


class TestAnyTransferSyntax:
    def test_the_header_ends_where_pixel_data_starts(self, builder: Builder) -> None:
        data = small_instance(builder)
        header = Header.parse(data, file_size=len(data))
        assert header.body_offset == len(header.data)
        if not header.is_deflated:
            assert data.startswith(header.data)
            assert data[header.body_offset :] == builder.element(0x7FE00010, "OW", b"\1\2\3\4")
        assert "PixelData" not in header

    def test_values_are_decoded(self, builder: Builder) -> None:
        rows = builder.element(0x00280010, "US", struct.pack(builder.order + "H", 512))
        data = small_instance(builder, rows)
        header = Header.parse(data, file_size=len(data))
        assert header.transfer_syntax_uid == builder.transfer_syntax_uid
        assert header.values("Modality") == ("CT",)
        assert header.values("(0010,0010)") == ("Doe^Jane",)
        assert header.values("Rows") == (512,)
        assert header.text("MediaStorageSOPInstanceUID") == SOP_INSTANCE_UID
        assert header.values("StudyDate") is None

    @pytest.mark.parametrize("undefined", [False, True])
    def test_items_are_reached(self, builder: Builder, undefined: bool) -> None:
        inner = builder.sequence(
            0x00400008,
            builder.item(builder.element(0x00080100, "SH", b"CODE"), undefined=undefined),
            undefined=undefined,
        )
        sequence = builder.sequence(
            0x00400275,
            builder.item(builder.element(0x00400009, "SH", b"STEP"), undefined=undefined),
            builder.item(inner, undefined=undefined),
            undefined=undefined,
        )
        data = small_instance(builder, sequence)
        header = Header.parse(data, file_size=len(data))
        assert header.text("RequestAttributesSequence[0].ScheduledProcedureStepID") == "STEP"
        path = "RequestAttributesSequence[*].ScheduledProtocolCodeSequence[0].CodeValue"
        assert header.text(path) == "CODE"
        assert "RequestAttributesSequence[2].ScheduledProcedureStepID" not in header
        walked = [str(path) for path, _ in header.walk()]
        assert walked[-1] == path.replace("*", "1")
        with pytest.raises(ValueError, match="Sequence"):
            header.values("RequestAttributesSequence")

    def test_the_header_alone_parses_again(self, builder: Builder) -> None:
        """A message carries `Header.data`; what is deflated is inflated there."""
        data = small_instance(builder)
        header = Header.parse(data, file_size=len(data))
        again = Header.parse(header.data, body_size=12)
        assert again.data == header.data
        assert again.values("PatientID") == ("ID42",)

    def test_every_truncation_is_told_apart(self, builder: Builder) -> None:
        """Cut anywhere in the Header: more is asked for, or the file is known to be cut short."""
        data = small_instance(builder)
        whole = Header.parse(data, file_size=len(data))
        end = whole.meta_end if whole.is_deflated else whole.body_offset
        for size in range(0, end, 7):
            with pytest.raises(HeaderIncompleteError) as caught:
                Header.parse(data[:size])
            assert caught.value.needed > size
            if size > whole.meta_end:
                # Cut between two Data Elements, it is a file without a Body.
                with contextlib.suppress(TruncatedInstanceError, MalformedHeaderError):
                    Header.parse(data[:size], file_size=size)


class TestReadingLittle:
    def test_the_body_is_not_read(self) -> None:
        reader = BytesReader(small_instance(Builder(), pixels=b"\0" * 1_000_000))
        read_header(reader)
        assert reader.bytes_read == 64 * 1024

    def test_a_long_header_is_read_in_growing_steps(self) -> None:
        builder = Builder()
        private = builder.element(0x00290010, "LO", b"SIEMENS CSA HEADER") + builder.element(
            0x00291010, "OB", b"\7" * 500_000
        )
        reader = BytesReader(small_instance(builder, private, pixels=b"\0" * 2_000_000))
        header = read_header(reader)
        assert header.values('(0029,"SIEMENS CSA HEADER",10)') == (b"\7" * 500_000,)
        assert reader.bytes_read < 1_200_000

    def test_a_large_encapsulated_document_is_the_body(self) -> None:
        builder = Builder()
        data = builder.file(
            builder.element(0x00080018, "UI", b"1.2.3\0"),
            builder.element(0x00420011, "OB", b"\0" * (16 * 1024 * 1024 + 2)),
        )
        header = read_header(BytesReader(data))
        assert "EncapsulatedDocument" not in header
        assert data[header.body_offset :][:4] == bytes.fromhex("42001100")

    def test_without_pixel_data_the_body_is_empty(self) -> None:
        builder = Builder()
        data = builder.file(builder.element(0x00080018, "UI", b"1.2.3\0"))
        assert read_header(BytesReader(data)).body_offset == len(data)
        with pytest.raises(HeaderIncompleteError):
            Header.parse(data)

    def test_what_stands_after_pixel_data_stays_in_the_body(self) -> None:
        builder = Builder()
        data = small_instance(builder) + builder.element(0xFFFCFFFC, "OB", b"\0\0")
        assert read_header(BytesReader(data)).data == Header.parse(data).data


class TestOddButLegal:
    def test_pixel_data_of_an_icon_is_not_the_body(self) -> None:
        builder = Builder("1.2.840.10008.1.2.4.50")
        fragments = builder.item() + builder.item(b"\xff\xd8\xff\xd9")
        icon = builder.sequence(
            0x00880200,
            builder.item(
                builder.element(0x7FE00010, "OB", fragments, UNDEFINED) + builder.delimiter(0xE0DD),
                undefined=True,
            ),
            undefined=True,
        )
        after = builder.element(0x00900010, "LO", b"X ")
        header = Header.parse(small_instance(builder, icon, after))
        assert "IconImageSequence[0].PixelData" in header
        assert "(0090,0010)" in header

    def test_un_of_undefined_length_is_implicit_inside(self) -> None:
        """PS3.5 6.2.2: a system that does not know a Sequence writes it so."""
        builder, implicit = Builder(), Builder(IMPLICIT_LE)
        private = builder.element(0x00290010, "LO", b"ACME") + builder.sequence(
            0x00291001,
            implicit.item(implicit.element(0x00100020, "LO", b"IN"), undefined=True),
            undefined=True,
            vr="UN",
        )
        header = Header.parse(small_instance(builder, private))
        assert header.text('(0029,"ACME",01)[0].PatientID') == "IN"
        element = header.element('(0029,"ACME",01)')
        assert element is not None
        assert (element.vr, element.encoded_vr) == ("SQ", "UN")

    def test_un_of_a_known_attribute_means_its_vr(self) -> None:
        builder = Builder()
        header = Header.parse(small_instance(builder, builder.element(0x00280010, "UN", b"\0\2")))
        assert header.values("Rows") == (512,)

    def test_a_private_block_is_found_by_its_creator(self) -> None:
        builder = Builder()
        header = Header.parse(
            small_instance(
                builder,
                builder.element(0x00310010, "LO", b"OTHER "),
                builder.element(0x00310011, "LO", b"ACME"),
                builder.element(0x00311020, "LO", b"no"),
                builder.element(0x00311120, "LO", b"yes "),
            )
        )
        assert header.text('(0031,"ACME",20)') == "yes"
        assert '(0031,"NOBODY",20)' not in header

    def test_file_meta_without_group_length_is_read(self) -> None:
        builder = Builder()
        data = builder.file(
            builder.element(0x00080060, "CS", b"MR"),
            builder.element(0x7FE00010, "OW", b"\0\0"),
            meta=builder.meta()[12:],
        )
        assert Header.parse(data).text("Modality") == "MR"

    def test_a_data_set_may_be_out_of_order(self) -> None:
        builder = Builder()
        header = Header.parse(small_instance(builder, builder.element(0x00080070, "LO", b"MAKER ")))
        assert header.text("Manufacturer") == "MAKER"
        assert not header.data_set.is_in_order

    def test_japanese_text_is_decoded(self) -> None:
        builder = Builder()
        header = Header.parse(
            builder.file(
                builder.element(0x00080005, "CS", b"\\ISO 2022 IR 87"),
                builder.element(
                    0x00100010,
                    "PN",
                    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
                    b"=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
                ),
                builder.element(0x7FE00010, "OW", b"\0\0"),
            )
        )
        assert header.text("PatientName") == "Yamada^Tarou=山田^太郎=やまだ^たろう"


class TestHostileInput:
    @pytest.mark.parametrize("data", [b"", b"hello", b"PK\3\4" + b"\0" * 500, b"\0" * 1000])
    def test_other_files_are_not_dicom(self, data: bytes) -> None:
        with pytest.raises(NotDicomError):
            read_header(BytesReader(data))

    def test_a_text_file_with_the_prefix_is_refused(self) -> None:
        with pytest.raises(AxiomError):
            read_header(BytesReader(b"\0" * 128 + b"DICM" + b"hello world " * 100))

    def test_a_huge_claim_costs_nothing(self) -> None:
        builder = Builder()
        claim = builder.element(0x00081110, "SQ", b"", 0xFFFFFFF0)
        tracemalloc.start()
        try:
            with pytest.raises(TruncatedInstanceError, match=r"\(0008,1110\)"):
                read_header(BytesReader(builder.file(claim)))
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

    def test_an_item_may_not_run_past_its_sequence(self) -> None:
        builder = Builder()
        item = struct.pack("<HHL", 0xFFFE, 0xE000, 100)
        header = Header.parse(small_instance(builder, builder.sequence(0x00400275, item)))
        with pytest.raises(MalformedHeaderError):
            list(header.walk())

    @pytest.mark.parametrize("undefined", [False, True])
    def test_nesting_is_bounded(self, undefined: bool) -> None:
        builder = Builder()
        nested = b""
        for _ in range(2000 if undefined else 300):
            nested = builder.sequence(
                0x0040A730, builder.item(nested, undefined=undefined), undefined=undefined
            )
        data = builder.file(nested)
        with pytest.raises(MalformedHeaderError, match="deeper"):
            list(Header.parse(data, file_size=len(data)).walk())

    def test_nested_guesses_are_made_once(self) -> None:
        """UN of defined length may be a Sequence. Guessing anew at each level would double the work
        each time, and never end.
        """
        builder, implicit = Builder(), Builder(IMPLICIT_LE)
        nested = b"no Sequence at all"
        for _ in range(60):
            nested = implicit.item(implicit.element(0x0040A730, "SQ", nested))
        data = builder.file(builder.element(0x0040A730, "UN", nested))
        list(Header.parse(data, file_size=len(data)).walk())

    def test_no_transfer_syntax_is_refused(self) -> None:
        builder = Builder()
        meta = builder.element(0x00020003, "UI", b"1.2\0")
        with pytest.raises(MalformedHeaderError, match="Transfer Syntax"):
            Header.parse(builder.file(builder.element(0x00080060, "CS", b"MR"), meta=meta))

    def test_errors_never_quote_values(self) -> None:
        builder = Builder()
        data = builder.file(builder.element(0x00100010, "PN", b"Doe^Jane", 4000))
        with pytest.raises(AxiomError) as caught:
            read_header(BytesReader(data))
        assert "Doe" not in str(caught.value)


def test_a_sequence_where_text_is_wanted_has_none() -> None:
    """Any sender may say SQ of any Attribute, also of the UIDs that reception asks for."""
    builder = Builder()
    data = builder.file(builder.sequence(0x00080018, builder.item()))
    header = Header.parse(data, file_size=len(data))
    assert header.text("SOPInstanceUID") == ""
    with pytest.raises(HasItemsError):
        header.values("SOPInstanceUID")
