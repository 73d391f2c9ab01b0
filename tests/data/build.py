"""DICOM files for tests, built byte by byte, so that none of them rests on the code under test.

Every function gives the bytes of one whole file. The same arguments give the same bytes, and
another SOP Instance UID gives other pixels, so that a mix-up shows.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from pydicom.data import get_testdata_file

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
PATIENT_ID = 0x00100020
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
ROWS = 0x00280010
PIXEL_DATA = 0x7FE00010

Elements = dict[int, bytes]  # encoded Data Elements by tag

_LONG_FORM_VRS = frozenset(
    {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
)


# ---- good Instances -------------------------------------------------------------------------


def ct(
    rows: int = 16,
    columns: int = 16,
    *,
    instance: str = "ct-1",
    series: str = "ct-series",
    study: str = "study",
    patient_id: str = "TEST-0001",
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    changes: Mapping[int, bytes | None] | None = None,
) -> bytes:
    """A CT Image, 16 bit, with Sequences (one of undefined length) and two private blocks.

    `instance`, `series` and `study` name the UIDs (`uid` of that name). `changes` are encoded Data
    Elements to put in (see `element`), by tag; None leaves that Data Element out. The data set is
    deflated if the Transfer Syntax says so, and Explicit VR Little Endian in any case.
    """
    elements = _image(CT_IMAGE_STORAGE, "CT", rows, columns, instance, series, study, patient_id)
    elements |= {
        0x00081140: sequence(
            0x00081140,
            element(0x00081150, "UI", CT_IMAGE_STORAGE)
            + element(0x00081155, "UI", uid("referenced")),
            undefined_length=True,
        ),
        0x00180015: element(0x00180015, "CS", "CHEST"),
        0x00180060: element(0x00180060, "DS", "120"),
        0x00281052: element(0x00281052, "DS", "-1024"),
        0x00281053: element(0x00281053, "DS", "1"),
        0x00290010: element(0x00290010, "LO", "AXIOM TEST A"),
        0x00290011: element(0x00290011, "LO", "AXIOM TEST B"),
        0x00291001: element(0x00291001, "OB", bytes(range(256))),
        0x00291102: sequence(0x00291102, element(0x00080104, "LO", "nested"), b""),
    }
    return part10_file(elements, changes, transfer_syntax_uid)


def mr(
    rows: int = 16,
    columns: int = 16,
    *,
    instance: str = "mr-1",
    series: str = "mr-series",
    study: str = "study",
    patient_id: str = "TEST-0001",
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    changes: Mapping[int, bytes | None] | None = None,
) -> bytes:
    """An MR Image, 16 bit, without private Data Elements; arguments as those of `ct`."""
    elements = _image(MR_IMAGE_STORAGE, "MR", rows, columns, instance, series, study, patient_id)
    elements |= {
        0x00180015: element(0x00180015, "CS", "BRAIN"),
        0x00180087: element(0x00180087, "DS", "1.5"),
    }
    return part10_file(elements, changes, transfer_syntax_uid)


def compressed() -> bytes:
    """An RLE compressed MR Image, as pydicom ships it."""
    return pydicom_file("MR_small_RLE.dcm")


def pydicom_file(name: str) -> bytes:
    """The bytes of a file inside the pydicom wheel."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom has no {name}"
    return Path(path).read_bytes()


# ---- broken files ---------------------------------------------------------------------------


def text_file() -> bytes:
    """No DICOM at all."""
    return b"Dear radiologist,\nthis is not an image.\n" * 40


def bad_preamble() -> bytes:
    """The prefix is not "DICM"."""
    whole = ct()
    return whole[:128] + b"DUMB" + whole[132:]


def truncated_header() -> bytes:
    """Cut in the middle of a Data Element, well before Pixel Data."""
    whole = ct()
    return whole[: whole.index(b"AXIOM TEST A") + 4]


def truncated_pixels() -> bytes:
    """Cut in the middle of Pixel Data."""
    return ct(64, 64)[:-4096]


def wrong_element_length() -> bytes:
    """A private Data Element claims 4000 bytes more than it has, and so swallows what follows."""
    wrong = struct.pack("<HH2sHI", 0x0029, 0x1001, b"OB", 0, 256 + 4000) + bytes(range(256))
    return ct(changes={0x00291001: wrong})


def ten_gigabyte_claim() -> bytes:
    """Rows x Columns x frames claim 10 GB, and Pixel Data the most that 32 bits can say."""
    return ct(
        changes={
            0x00280008: element(0x00280008, "IS", "20000"),
            ROWS: element(ROWS, "US", struct.pack("<H", 512)),
            0x00280011: element(0x00280011, "US", struct.pack("<H", 512)),
            PIXEL_DATA: struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFE) + b"\0" * 512,
        }
    )


def four_gigabyte_element() -> bytes:
    """A private Data Element of the header claims 4 GB."""
    claim = struct.pack("<HH2sHI", 0x0029, 0x1001, b"OB", 0, 0xFFFFFFF0) + b"\0" * 64
    return ct(changes={0x00291001: claim})


def without(*tags: int) -> bytes:
    """A CT Image that lacks these Data Elements."""
    return ct(changes=dict.fromkeys(tags))


def without_sop_instance_uid() -> bytes:
    """Nothing in the data set says which Instance this is."""
    return without(SOP_INSTANCE_UID)


def without_study_and_series_uid() -> bytes:
    """Nothing says to which Study and Series the Instance belongs."""
    return without(STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)


def without_patient_id() -> bytes:
    """Patient ID (0010,0020), Type 2, is absent; empty would be legal (PS3.5 7.4.3)."""
    return without(PATIENT_ID)


def mismatched_sop_instance_uid() -> bytes:
    """Media Storage SOP Instance UID (0002,0003) names another Instance than the data set."""
    return ct(changes={SOP_INSTANCE_UID: element(SOP_INSTANCE_UID, "UI", uid("another"))})


BROKEN: Mapping[str, Callable[[], bytes]] = {
    broken.__name__: broken
    for broken in (
        text_file,
        bad_preamble,
        truncated_header,
        truncated_pixels,
        wrong_element_length,
        ten_gigabyte_claim,
        four_gigabyte_element,
        without_sop_instance_uid,
        without_study_and_series_uid,
        without_patient_id,
        mismatched_sop_instance_uid,
    )
}


# ---- the parts ------------------------------------------------------------------------------


def uid(name: str) -> str:
    """A UID that is the same for the same name (PS3.5 B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, name).int}"


def element(tag: int, vr: str, value: str | bytes) -> bytes:
    """One Data Element in Explicit VR Little Endian, padded to even length (PS3.5 7.1.2, 6.2)."""
    data = value.encode("ascii") if isinstance(value, str) else value
    if len(data) % 2:
        data += b" " if isinstance(value, str) and vr != "UI" else b"\0"
    start = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    length = (
        struct.pack("<HI", 0, len(data)) if vr in _LONG_FORM_VRS else struct.pack("<H", len(data))
    )
    return start + length + data


def sequence(tag: int, *items: bytes, undefined_length: bool = False) -> bytes:
    """A Sequence of Items; with `undefined_length` it and its Items end by delimiters."""
    if not undefined_length:
        return element(tag, "SQ", b"".join(fragment(item) for item in items))
    start = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF)
    item_start, item_end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
    return start + b"".join(item_start + item + item_end for item in items) + SEQUENCE_END


SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def fragment(payload: bytes) -> bytes:
    """One Item of defined length; `payload` as it is, odd lengths too."""
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(payload)) + payload


def encapsulated(*fragments: bytes, offset_table: bytes = b"") -> bytes:
    """Pixel Data of undefined length: Basic Offset Table, then the fragments (PS3.5 A.4)."""
    start = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return start + b"".join(map(fragment, (offset_table, *fragments))) + SEQUENCE_END


def data_set(
    elements: Mapping[int, bytes], changes: Mapping[int, bytes | None] | None = None
) -> bytes:
    """The Data Elements in ascending order of tags, after `changes`."""
    changed = {**elements, **(changes or {})}
    return b"".join(changed[tag] or b"" for tag in sorted(changed))


def part10(
    data_set: bytes,
    *,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    sop_instance_uid: str,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    meta_changes: Mapping[int, bytes | None] | None = None,
) -> bytes:
    """Preamble, prefix, File Meta Information and the data set (PS3.10 7.1)."""
    meta: Elements = {
        0x00020001: element(0x00020001, "OB", b"\0\1"),
        0x00020002: element(0x00020002, "UI", sop_class_uid),
        0x00020003: element(0x00020003, "UI", sop_instance_uid),
        0x00020010: element(0x00020010, "UI", transfer_syntax_uid),
        0x00020012: element(0x00020012, "UI", uid("tests")),
    }
    group = b"".join(e for _, e in sorted({**meta, **(meta_changes or {})}.items()) if e)
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)  # bare, without zlib's header (PS3.5 A.5)
        data_set = deflate.compress(data_set) + deflate.flush()
    length = element(0x00020000, "UL", struct.pack("<I", len(group)))
    return b"\0" * 128 + b"DICM" + length + group + data_set


def part10_file(
    elements: Elements,
    changes: Mapping[int, bytes | None] | None = None,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
) -> bytes:
    """A Part 10 file; File Meta names what `elements` name, whatever `changes` do to them."""
    return part10(
        data_set(elements, changes),
        sop_class_uid=_text(elements[SOP_CLASS_UID]),
        sop_instance_uid=_text(elements[SOP_INSTANCE_UID]),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _text(short_form_element: bytes) -> str:
    return short_form_element[8:].rstrip(b"\0 ").decode("ascii")


def _image(
    sop_class_uid: str,
    modality: str,
    rows: int,
    columns: int,
    instance: str,
    series: str,
    study: str,
    patient_id: str,
) -> Elements:
    def us(tag: int, number: int) -> bytes:
        return element(tag, "US", struct.pack("<H", number))

    pixels = random.Random(instance).randbytes(rows * columns * 2)
    elements = (
        element(0x00080005, "CS", "ISO_IR 192"),
        element(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        element(SOP_CLASS_UID, "UI", sop_class_uid),
        element(SOP_INSTANCE_UID, "UI", uid(instance)),
        element(0x00080020, "DA", "20240229"),
        element(0x00080030, "TM", "120000"),
        element(0x00080050, "SH", "ACC-1"),
        element(0x00080060, "CS", modality),
        element(0x00080070, "LO", "Axiom Flow tests"),
        element(0x00080090, "PN", ""),
        element(0x00081030, "LO", f"{modality} study"),
        element(0x0008103E, "LO", f"{modality} series"),
        element(0x00100010, "PN", "Test^Patient"),
        element(PATIENT_ID, "LO", patient_id),
        element(0x00100030, "DA", ""),
        element(0x00100040, "CS", "O"),
        element(STUDY_INSTANCE_UID, "UI", uid(study)),
        element(SERIES_INSTANCE_UID, "UI", uid(series)),
        element(0x00200010, "SH", "1"),
        element(0x00200011, "IS", "1"),
        element(0x00200013, "IS", "1"),
        us(0x00280002, 1),
        element(0x00280004, "CS", "MONOCHROME2"),
        us(ROWS, rows),
        us(0x00280011, columns),
        us(0x00280100, 16),
        us(0x00280101, 16),
        us(0x00280102, 15),
        us(0x00280103, 0),
        element(PIXEL_DATA, "OW", pixels),
    )
    return {
        int.from_bytes(e[:2], "little") << 16 | int.from_bytes(e[2:4], "little"): e
        for e in elements
    }
