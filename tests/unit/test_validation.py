"""What validation finds, refuses and lets pass, on Instances built for the purpose."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import pytest

from shared.dicom import validation_body, validation_source
from shared.dicom.header import read_header
from shared.dicom.validation import (
    DEFAULT_SEVERITIES,
    Finding,
    Severity,
    check_received,
    raise_if_rejected,
    validate,
)
from shared.errors import (
    InvalidInstanceError,
    PermanentError,
    SopInstanceMismatchError,
    TruncatedInstanceError,
)
from tests.data import build
from tests.data.build import PIXEL_DATA, ct, element, encapsulated, fragment, uid
from tests.unit.dicom.builders import BytesReader

COLUMNS, BITS_ALLOCATED, SAMPLES, PHOTOMETRIC, FRAMES = (
    0x00280011,
    0x00280100,
    0x00280002,
    0x00280004,
    0x00280008,
)


def find(data: bytes) -> tuple[Finding, ...]:
    reader = BytesReader(data)
    return validate(read_header(reader), reader)


def codes(data: bytes) -> list[str]:
    return [finding.code for finding in find(data)]


def receive(data: bytes, *, knows_body_start: bool = True) -> None:
    header = read_header(BytesReader(data))
    start = data[header.body_offset : header.body_offset + 12]
    check_received(header, len(data), body_start=start if knows_body_start else b"")


def us(tag: int, number: int) -> bytes:
    return element(tag, "US", struct.pack("<H", number))


def with_elements(*changes: bytes) -> bytes:
    """A CT Image with these Data Elements put in place of its own."""
    return ct(
        changes={
            struct.unpack("<HH", e[:4])[0] << 16 | struct.unpack("<HH", e[:4])[1]: e
            for e in changes
        }
    )


def with_pixels(length: int, *others: bytes, vr: str = "OW") -> bytes:
    return with_elements(*others, element(PIXEL_DATA, vr, b"\1" * length))


def rle(*fragments: bytes, frames: int = 1, offset_table: bytes = b"", tail: bytes = b"") -> bytes:
    """A CT Image in RLE Lossless; nothing decodes the fragments."""
    return ct(
        transfer_syntax_uid=build.RLE_LOSSLESS,
        changes={
            FRAMES: element(FRAMES, "IS", str(frames)),
            PIXEL_DATA: encapsulated(*fragments, offset_table=offset_table) + tail,
        },
    )


def offsets(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}L", *values)


class TestGoodInstances:
    @pytest.mark.parametrize(
        "data",
        [
            ct(),
            build.mr(),
            ct(transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
            build.compressed(),
            *map(
                build.pydicom_file,
                (
                    "CT_small.dcm",
                    "MR_small_bigendian.dcm",
                    "MR_small_implicit.dcm",
                    "SC_rgb_rle_2frame.dcm",
                    "SC_ybr_full_422_uncompressed.dcm",
                    "JPEG2000-embedded-sequence-delimiter.dcm",
                    "liver_1frame.dcm",
                    "rtplan.dcm",
                    "examples_ybr_color.dcm",
                ),
            ),
        ],
    )
    def test_are_received_and_have_no_findings_that_reject(self, data: bytes) -> None:
        receive(data)
        receive(data, knows_body_start=False)
        raise_if_rejected(find(data))

    def test_have_no_findings_at_all_when_they_follow_the_standard(self) -> None:
        assert find(ct()) == ()
        assert find(build.mr()) == ()
        assert find(rle(b"ab", b"cd", frames=2, offset_table=offsets(0, 10))) == ()


class TestIdentity:
    @pytest.mark.parametrize(
        ("tag", "code"),
        [
            (build.SOP_CLASS_UID, "sop-class-uid-missing"),
            (build.SOP_INSTANCE_UID, "sop-instance-uid-missing"),
            (build.STUDY_INSTANCE_UID, "study-instance-uid-missing"),
            (build.SERIES_INSTANCE_UID, "series-instance-uid-missing"),
        ],
    )
    @pytest.mark.parametrize("is_empty", [False, True], ids=["absent", "empty"])
    def test_a_needed_uid_must_be_there(self, tag: int, code: str, is_empty: bool) -> None:
        data = with_elements(element(tag, "UI", "")) if is_empty else build.without(tag)
        (finding,) = find(data)
        assert finding.code == code
        assert ("empty" if is_empty else "absent") in finding.message
        with pytest.raises(InvalidInstanceError):
            receive(data)

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            ("1.2.840.0", None),
            ("0", None),
            ("1" + ".2" * 31 + "1", None),  # 64 characters
            ("1.2.03", "study-instance-uid-malformed"),
            ("1..2", "study-instance-uid-malformed"),
            ("1.2.", "study-instance-uid-malformed"),
            ("1.0.0.2", None),
            ("1.0.00.2", "study-instance-uid-malformed"),
            ("01.2", "study-instance-uid-malformed"),
            ("..", "study-instance-uid-unsafe"),
            (".1.2", "study-instance-uid-unsafe"),
            ("../../etc/passwd", "study-instance-uid-unsafe"),
            ("1.2/3", "study-instance-uid-unsafe"),
            ("1.2\\1.3", "study-instance-uid-unsafe"),
            ("1.2.x", "study-instance-uid-unsafe"),
            ("1.2\n", "study-instance-uid-unsafe"),
            ("1" + ".2" * 32, "study-instance-uid-unsafe"),  # 65 characters
        ],
    )
    def test_a_uid_has_a_form(self, value: str, code: str | None) -> None:
        """PS3.5 9.1. What is unsafe cannot be a file name or a key; the rest is bad style."""
        found = codes(with_elements(element(build.STUDY_INSTANCE_UID, "UI", value)))
        assert found == ([code] if code else [])

    def test_leading_zeros_pass_with_a_warning(self) -> None:
        """Modalities that make UIDs of dates send them; refusing would lose the whole modality."""
        data = with_elements(element(build.SERIES_INSTANCE_UID, "UI", "1.2.2024.02.09"))
        receive(data)
        (warning,) = raise_if_rejected(find(data))
        assert warning.code == "series-instance-uid-malformed"

    def test_an_absent_patient_id_rejects_and_an_empty_one_warns(self) -> None:
        """Type 2 (PS3.5 7.4.3): it may be empty, but it must be there."""
        assert codes(build.without_patient_id()) == ["patient-id-missing"]
        assert codes(ct(patient_id="")) == ["patient-id-empty"]
        with pytest.raises(InvalidInstanceError):
            receive(build.without_patient_id())
        receive(ct(patient_id=""))

    def test_an_object_of_no_patient_needs_neither_patient_nor_study(self) -> None:
        """Color palettes and hanging protocols (PS3.4 GG) are stored like Instances of patients."""
        palette = "1.2.840.10008.5.1.4.39.1"
        data = build.part10(
            element(build.SOP_CLASS_UID, "UI", palette)
            + element(build.SOP_INSTANCE_UID, "UI", uid("palette")),
            sop_class_uid=palette,
            sop_instance_uid=uid("palette"),
        )
        assert find(data) == ()

    def test_another_sop_instance_in_file_meta_warns(self) -> None:
        """Tools that de-identify leave File Meta behind, and every reader goes by the data set."""
        data = build.mismatched_sop_instance_uid()
        assert codes(data) == ["meta-sop-instance-uid-mismatch"]
        receive(data)

    def test_another_sop_instance_in_file_meta_refuses_if_settings_say_so(self) -> None:
        data = build.mismatched_sop_instance_uid()
        severities = {"meta-sop-instance-uid-mismatch": Severity.REJECT}
        with pytest.raises(SopInstanceMismatchError) as error:
            check_received(read_header(BytesReader(data)), len(data), severities)
        assert error.value.args == ("SOPInstanceUID", uid("ct-1"), uid("another"))

    def test_another_sop_class_in_file_meta_refuses(self) -> None:
        data = with_elements(element(build.SOP_CLASS_UID, "UI", build.MR_IMAGE_STORAGE))
        assert codes(data) == ["meta-sop-class-uid-mismatch"]
        with pytest.raises(SopInstanceMismatchError):
            receive(data)

    def test_file_meta_without_uids_warns(self) -> None:
        whole = ct()
        data_set = whole[read_header(BytesReader(whole)).meta_end :]
        data = build.part10(
            data_set,
            sop_instance_uid=uid("ct-1"),
            meta_changes={0x00020002: None, 0x00020003: None},
        )
        assert codes(data) == ["meta-sop-class-uid-missing", "meta-sop-instance-uid-missing"]

    @pytest.mark.parametrize("by_sop_class", [True, False])
    def test_a_dicomdir_is_no_instance(self, by_sop_class: bool) -> None:
        """Nothing else is said about it: that it has no Study would only distract."""
        data = build.part10(
            build.sequence(0x00041220) if not by_sop_class else b"",
            sop_class_uid="1.2.840.10008.1.3.10" if by_sop_class else "1.2.3",
            sop_instance_uid=uid("directory"),
        )
        assert codes(data) == ["media-directory"]
        with pytest.raises(InvalidInstanceError):
            receive(data)

    @pytest.mark.parametrize(
        ("terms", "is_known"),
        [
            ("", True),
            ("ISO_IR 100", True),
            ("\\ISO 2022 IR 87", True),
            ("GB18030", True),
            ("ISO-IR 100", False),
            ("UTF8", False),
        ],
    )
    def test_an_unknown_character_set_warns(self, terms: str, is_known: bool) -> None:
        found = codes(with_elements(element(0x00080005, "CS", terms)))
        assert found == ([] if is_known else ["character-set-unknown"])

    def test_odd_lengths_are_one_warning_however_many_there_are(self) -> None:
        odd = struct.pack("<HH2sH", 0x0008, 0x1030, b"LO", 3) + b"abc"
        nested = build.sequence(
            0x00081140, struct.pack("<HH2sH", 8, 0x104, b"LO", 1) + b"x", undefined_length=True
        )
        (finding,) = find(with_elements(odd, nested))
        assert (finding.code, finding.path) == ("odd-length", "StudyDescription")
        assert "and 1 more" in finding.message

    def test_a_sequence_that_cannot_be_walked_passes_with_a_warning(self) -> None:
        """Its bytes go on unread, and systems that do not need it never notice."""
        overrun = fragment(struct.pack("<HH2sH", 8, 0x104, b"LO", 400) + b"x")
        data = with_elements(element(0x00081140, "SQ", overrun))
        assert codes(data) == ["sequence-malformed"]
        receive(data)


class TestNativePixelData:
    def test_cut_short_is_refused_while_the_sender_waits(self) -> None:
        data = build.truncated_pixels()
        for knows_body_start in (True, False):
            with pytest.raises(TruncatedInstanceError) as error:
                receive(data, knows_body_start=knows_body_start)
            assert error.value.args[1:] == (64 * 64 * 2, 64 * 64 * 2 - 4096)
        assert codes(data) == ["pixel-data-truncated"]

    @pytest.mark.parametrize("missing", [1, 7, 11, 12, 13, 100, 511])
    def test_every_cut_inside_pixel_data_is_found(self, missing: int) -> None:
        """The cut may also go through the start of the Data Element."""
        whole = ct()
        cut = len(whole) - 512 - 12 + missing
        if missing < 8:  # not even a tag and a VR are left: no header ends there
            with pytest.raises(TruncatedInstanceError):
                read_header(BytesReader(whole[:cut]))
        else:
            assert codes(whole[:cut]) == ["pixel-data-truncated"]

    def test_a_claim_of_ten_gigabytes_is_refused(self) -> None:
        data = build.ten_gigabyte_claim()
        for knows_body_start in (True, False):
            with pytest.raises(TruncatedInstanceError):
                receive(data, knows_body_start=knows_body_start)
        assert codes(data) == ["pixel-data-too-short", "pixel-data-truncated"]

    def test_a_deflated_claim_that_no_deflation_reaches_is_refused(self) -> None:
        data = ct(
            transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            changes={FRAMES: element(FRAMES, "IS", "1000000")},
        )
        with pytest.raises(TruncatedInstanceError):
            receive(data, knows_body_start=False)

    @pytest.mark.parametrize(
        ("length", "attributes", "expected"),
        [
            (512, (), []),
            (510, (), ["pixel-data-too-short"]),
            (514, (), ["pixel-data-too-long"]),
            (1024, (element(FRAMES, "IS", "2"),), []),
            (512, (element(FRAMES, "IS", "2"),), ["pixel-data-too-short"]),
            (256, (us(BITS_ALLOCATED, 8),), []),
            (768, (us(BITS_ALLOCATED, 8), us(SAMPLES, 3)), []),
            (32, (us(BITS_ALLOCATED, 1),), []),
            # 3 frames of 3 x 5 single bits follow each other without a gap: 45 bits, 6 bytes.
            (
                6,
                (
                    us(build.ROWS, 3),
                    us(COLUMNS, 5),
                    us(BITS_ALLOCATED, 1),
                    element(FRAMES, "IS", "3"),
                ),
                [],
            ),
            (384, (us(BITS_ALLOCATED, 12),), []),  # ACR-NEMA packed two pixels in three bytes
            (226, (us(build.ROWS, 15), us(COLUMNS, 15), us(BITS_ALLOCATED, 8)), []),  # padded
            (
                512,
                (us(BITS_ALLOCATED, 8), us(SAMPLES, 3), element(PHOTOMETRIC, "CS", "YBR_FULL_422")),
                [],
            ),
            (
                384,
                (
                    us(BITS_ALLOCATED, 8),
                    us(SAMPLES, 3),
                    element(PHOTOMETRIC, "CS", "YBR_PARTIAL_420"),
                ),
                [],
            ),
            (512, (element(FRAMES, "IS", "two"),), ["image-attribute-malformed"]),
            (512, (element(BITS_ALLOCATED, "US", ""),), ["image-attribute-malformed"]),
            (512, (us(build.ROWS, 0),), ["image-size-missing"]),
            (0, (), ["pixel-data-missing"]),
        ],
    )
    def test_has_the_length_that_the_attributes_say(
        self, length: int, attributes: tuple[bytes, ...], expected: list[str]
    ) -> None:
        assert codes(with_pixels(length, *attributes)) == expected

    @pytest.mark.parametrize(("tag", "vr", "size"), [(0x7FE00008, "OF", 4), (0x7FE00009, "OD", 8)])
    def test_float_pixel_data_has_its_own_size_of_pixel(self, tag: int, vr: str, size: int) -> None:
        for length, expected in ((256 * size, []), (255 * size, ["pixel-data-too-short"])):
            pixels = element(tag, vr, b"\0" * length)
            assert codes(ct(changes={PIXEL_DATA: None, tag: pixels})) == expected

    def test_of_odd_length_warns_twice_at_most(self) -> None:
        pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 225) + b"\0" * 225
        data = with_elements(us(build.ROWS, 15), us(COLUMNS, 15), us(BITS_ALLOCATED, 8), pixels)
        assert codes(data) == ["odd-length"]

    def test_without_rows_and_columns_rejects(self) -> None:
        data = build.without(build.ROWS, COLUMNS)
        assert codes(data) == ["image-size-missing", "image-size-missing"]

    @pytest.mark.parametrize(
        "data",
        [
            with_pixels(510),
            build.without(build.ROWS),
            ct(transfer_syntax_uid=build.RLE_LOSSLESS),
            ct(changes={PIXEL_DATA: encapsulated(b"ab")}),
        ],
    )
    def test_that_does_not_fit_the_header_is_refused_while_the_sender_waits(
        self, data: bytes
    ) -> None:
        with pytest.raises(InvalidInstanceError):
            receive(data)

    def test_absent_from_an_image_warns(self) -> None:
        assert codes(build.without(PIXEL_DATA)) == ["pixel-data-missing"]

    def test_elsewhere_by_url_is_not_missing(self) -> None:
        url = element(0x00287FE0, "UR", "https://example.org/jpip")
        assert codes(ct(changes={PIXEL_DATA: None, 0x00287FE0: url})) == []

    def test_under_an_encapsulated_syntax_rejects(self) -> None:
        assert codes(ct(transfer_syntax_uid=build.RLE_LOSSLESS)) == [
            "native-in-encapsulated-syntax"
        ]

    def test_is_not_read(self) -> None:
        """Fifty megabytes of pixels cost one small read."""
        data = ct(5000, 5000)
        reader = BytesReader(data)
        header = read_header(reader)
        reader.bytes_read = 0
        assert validate(header, reader) == ()
        assert reader.bytes_read < 2048


class TestEncapsulatedPixelData:
    def test_under_a_native_syntax_rejects(self) -> None:
        data = ct(changes={PIXEL_DATA: encapsulated(b"ab")})
        assert codes(data) == ["encapsulated-in-native-syntax"]

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (rle(b"ab"), []),
            (rle(b"ab", b"cdef", frames=2), []),
            (rle(b"ab", b"cdef", frames=2, offset_table=offsets(0, 10)), []),
            (rle(b"ab", b"cd", frames=3), ["fragments-too-few"]),
            (rle(frames=1), ["fragments-too-few"]),
            (rle(b"ab", b"cd"), ["fragments-too-many"]),
            (rle(b"ab", b"", frames=2), ["fragment-empty"]),
            (rle(b"abc"), ["odd-length"]),
            (rle(b"ab", b"cd", frames=2, offset_table=offsets(0, 8)), ["offset-table-implausible"]),
            (
                rle(b"ab", b"cd", frames=2, offset_table=offsets(10, 0)),
                ["offset-table-implausible"],
            ),
            (rle(b"ab", b"cd", frames=2, offset_table=offsets(0)), ["offset-table-implausible"]),
            (rle(b"ab", offset_table=offsets(0, 10)), ["offset-table-implausible"]),
            (rle(b"ab", offset_table=b"\0\0\0"), ["offset-table-implausible"]),
        ],
    )
    def test_has_fragments_for_all_frames_and_offsets_that_fit(
        self, data: bytes, expected: list[str]
    ) -> None:
        assert codes(data) == expected

    def test_cut_anywhere_rejects(self) -> None:
        whole = rle(b"ab", b"cdef", frames=2, offset_table=offsets(0, 10))
        header = read_header(BytesReader(whole))
        for end in range(header.body_offset + 8, len(whole)):
            with pytest.raises(InvalidInstanceError):
                raise_if_rejected(find(whole[:end]))

    @pytest.mark.parametrize(
        "pixels",
        [
            b"",
            build.SEQUENCE_END,
            fragment(b"") + b"\1\2\3\4\5\6\7\10" + build.SEQUENCE_END,
            fragment(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + build.SEQUENCE_END,
            fragment(b"") + fragment(b"ab") + b"\xfe\xff\x0d\xe0\0\0\0\0",
            fragment(b"") + fragment(b"ab"),
        ],
    )
    def test_must_be_items_and_a_delimiter(self, pixels: bytes) -> None:
        start = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        data = ct(transfer_syntax_uid=build.RLE_LOSSLESS, changes={PIXEL_DATA: start + pixels})
        assert codes(data) == ["fragments-malformed"]

    def test_of_a_video_may_be_one_fragment_for_all_frames(self) -> None:
        data = ct(
            transfer_syntax_uid="1.2.840.10008.1.2.4.102",
            changes={FRAMES: element(FRAMES, "IS", "250"), PIXEL_DATA: encapsulated(b"stream")},
        )
        assert codes(data) == []

    @pytest.mark.parametrize(
        ("starts", "lengths", "is_plausible"),
        [
            ((0, 10), (2, 4), True),
            ((0, 10), (1, 3), True),  # lengths may leave the padding out
            ((0, 10), (2, 400), False),
            ((0, 8), (2, 4), False),
            ((0,), (2,), False),
            ((0, 10), (2,), False),
            ((0, 1 << 40), (2, 4), False),
        ],
    )
    def test_has_an_extended_offset_table_that_fits(
        self, starts: tuple[int, ...], lengths: tuple[int, ...], is_plausible: bool
    ) -> None:
        def ov(tag: int, values: Iterable[int]) -> bytes:
            return element(tag, "OV", b"".join(struct.pack("<Q", value) for value in values))

        data = ct(
            transfer_syntax_uid="1.2.840.10008.1.2.4.90",
            changes={
                FRAMES: element(FRAMES, "IS", "2"),
                0x7FE00001: ov(0x7FE00001, starts),
                0x7FE00002: ov(0x7FE00002, lengths),
                PIXEL_DATA: encapsulated(b"ab", b"cdef"),
            },
        )
        assert codes(data) == ([] if is_plausible else ["extended-offset-table-implausible"])

    def test_payloads_are_not_read(self) -> None:
        data = rle(*[b"x" * 1_000_000] * 20, frames=20)
        reader = BytesReader(data)
        header = read_header(reader)
        reader.bytes_read = 0
        assert validate(header, reader) == ()
        assert reader.bytes_read < 20 * 1024

    def test_that_is_all_empty_items_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(validation_body, "MAX_ITEMS", 1000)
        assert codes(rle(*[b""] * 1001)) == ["too-many-items"]


class TestWhatFollowsPixelData:
    PADDING = element(0xFFFCFFFC, "OB", b"\0" * 100)

    @pytest.mark.parametrize(
        ("tail", "expected"),
        [
            (PADDING, []),
            (element(0x7FE11010, "OB", b"private"), []),
            (build.sequence(0xFFFAFFFA, element(0x04000005, "US", b"\1\0")), []),
            (
                build.sequence(
                    0xFFFAFFFA,
                    build.sequence(0x04000401, b"", undefined_length=True),
                    undefined_length=True,
                )
                + PADDING,
                [],
            ),
            (PADDING[:-1], ["element-truncated"]),
            (PADDING[:9], ["trailing-bytes"]),
            (build.sequence(0xFFFAFFFA, b"", undefined_length=True)[:-9], ["element-truncated"]),
            (
                struct.pack("<HH2sHI", 0xFFFA, 0xFFFA, b"SQ", 0, 0xFFFFFFFF)
                + build.SEQUENCE_END * 2,
                ["trailing-bytes"],
            ),
            (b"\0", ["trailing-bytes"]),
            (b"\0" * 1000, ["trailing-bytes"]),
            (b"\n-- sent by a mail gateway --\n", ["trailing-bytes"]),
            (element(0x00100010, "PN", "Out^Of^Order"), ["trailing-bytes"]),
        ],
    )
    def test_is_walked_to_the_end(self, tail: bytes, expected: list[str]) -> None:
        assert codes(ct() + tail) == expected
        assert codes(rle(b"ab", tail=tail)) == expected

    def test_nests_only_so_deep(self) -> None:
        item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        start = struct.pack("<HH2sHI", 0x7FE1, 0x1010, b"SQ", 0, 0xFFFFFFFF)
        assert codes(ct() + (start + item) * 1000) == ["element-truncated"]

    def test_a_large_value_before_pixel_data_is_passed_over(self) -> None:
        """The header ends at it, so it is the Body's."""
        document = element(0x00420011, "OB", b"%PDF" * (5 << 20))
        data = ct(changes={0x00420011: document})
        assert codes(data) == []
        assert codes(data[:-600]) == ["element-truncated"]
        with pytest.raises(TruncatedInstanceError):
            receive(data[:-600])

    def test_a_claim_of_four_gigabytes_is_refused(self) -> None:
        data = build.four_gigabyte_element()
        with pytest.raises(TruncatedInstanceError):
            receive(data)


class TestDeflatedStreams:
    DEFLATED = ct(64, 64, transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)

    def test_may_be_padded_by_one_byte(self) -> None:
        assert codes(self.DEFLATED) == []
        assert codes(self.DEFLATED + b"\0") == []
        assert codes(self.DEFLATED + b"\0\0") == ["trailing-bytes"]

    def test_cut_short_reject(self) -> None:
        found = codes(self.DEFLATED[:-1000])
        assert found == ["pixel-data-truncated", "deflated-stream-broken"]

    @pytest.mark.parametrize("end", [b"", b"\7 a block of no type"])
    def test_without_a_proper_end_reject(self, end: bytes) -> None:
        """All bytes are there, but whether they are the right ones only the end tells."""
        plain = ct(512, 512)  # so that the header is read without coming to the end
        meta_end = read_header(BytesReader(plain)).meta_end
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        stream = deflate.compress(plain[meta_end:]) + deflate.flush(zlib.Z_SYNC_FLUSH)
        empty = build.part10(
            b"",
            sop_instance_uid=uid("ct-1"),
            transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        )
        # An empty stream is two bytes, which this one takes the place of.
        assert codes(empty[:-2] + stream + end)[-1] == "deflated-stream-broken"

    def test_that_never_end_are_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bomb of a megabyte inflates to a gigabyte."""
        monkeypatch.setattr(validation_source, "MAX_INFLATED_BYTES", 1 << 20)
        bomb = ct(
            transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            changes={0xFFFCFFFC: element(0xFFFCFFFC, "OB", b"\0" * (4 << 20))},
        )
        assert codes(bomb) == ["element-truncated", "deflated-stream-too-large"]


class TestSeverities:
    def test_are_what_settings_say_they_are(self) -> None:
        findings = find(build.without_patient_id())
        (warning,) = raise_if_rejected(findings, {"patient-id-missing": Severity.WARN})
        assert warning.code == "patient-id-missing"
        assert raise_if_rejected(findings, {"patient-id-missing": Severity.IGNORE}) == ()
        with pytest.raises(InvalidInstanceError):
            raise_if_rejected(find(ct(patient_id="")), {"patient-id-empty": Severity.REJECT})

    def test_count_at_reception_too(self) -> None:
        data = build.truncated_pixels()
        header = read_header(BytesReader(data))
        check_received(header, len(data), {"pixel-data-truncated": Severity.WARN})

    def test_every_rejecting_finding_is_named(self) -> None:
        """So that the sender mends them all at once."""
        with pytest.raises(InvalidInstanceError) as error:
            raise_if_rejected(find(build.without_study_and_series_uid()))
        assert "study-instance-uid-missing" in str(error.value)
        assert "series-instance-uid-missing" in str(error.value)

    def test_have_a_default_for_each_code(self) -> None:
        assert set(DEFAULT_SEVERITIES.values()) == {Severity.REJECT, Severity.WARN}
        assert all(code == code.lower() and " " not in code for code in DEFAULT_SEVERITIES)


def test_no_message_quotes_the_patient() -> None:
    """Findings go to logs, to the sender and into the exception log."""
    patient = "Secret^Name"
    in_uids = [
        element(tag, "UI", patient)
        for tag in (build.SOP_CLASS_UID, build.SOP_INSTANCE_UID, build.STUDY_INSTANCE_UID)
    ]
    strange = with_elements(
        *in_uids, element(0x00080005, "CS", patient), element(FRAMES, "IS", patient)
    )
    shown = [*map(str, find(strange))]
    with pytest.raises(PermanentError) as error:
        receive(strange)
    assert len(shown) >= 6
    assert not any("Secret" in text for text in [*shown, str(error.value)])


@pytest.mark.parametrize("name", build.BROKEN)
def test_the_broken_family_never_passes_unnoticed(name: str) -> None:
    """Either the header cannot be read, or reception refuses it, or validation has findings."""
    data = build.BROKEN[name]()
    try:
        receive(data)
        findings = find(data)
    except PermanentError:
        return
    assert findings
