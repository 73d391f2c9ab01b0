"""An Instance on its way out: the Header that rules made, the Body that was received."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from shared.dicom.header import Header
from shared.dicom.outgoing import FileRange, OutgoingInstance, chunks
from shared.errors import MalformedHeaderError, TruncatedInstanceError
from tests.data import build
from tests.unit.destinations.received import ReceivedFile, outgoing

DEFLATED = "1.2.840.10008.1.2.1.99"


def part10(instance: OutgoingInstance) -> bytes:
    whole = b"".join(chunks(instance.part10_parts()))
    assert len(whole) == instance.part10_size
    return whole


def data_set(instance: OutgoingInstance) -> bytes:
    return b"".join(chunks(instance.data_set_parts()))


def inflated(deflated: bytes) -> bytes:
    return zlib.decompress(deflated, -zlib.MAX_WBITS)


@pytest.fixture(params=[True, False], ids=["descriptor", "stream"])
def has_descriptor(request: pytest.FixtureRequest) -> bool:
    """Whether the store offers sendfile(2)."""
    return bool(request.param)


def test_an_unchanged_instance_goes_out_as_it_came(tmp_path: Path, has_descriptor: bool) -> None:
    received = build.ct()
    instance = outgoing(tmp_path, received, has_descriptor=has_descriptor)
    assert part10(instance) == received
    assert data_set(instance) == received[instance.header.meta_end :]


def test_an_edited_header_is_followed_by_the_received_body(tmp_path: Path) -> None:
    received = build.ct()
    edited = build.ct(patient_id="A-MUCH-LONGER-PATIENT-ID")
    instance = outgoing(tmp_path, received, edited)
    assert part10(instance) == edited
    assert data_set(instance) == edited[instance.header.meta_end :]


def test_a_changed_sop_instance_uid_leaves_the_pixels_alone(tmp_path: Path) -> None:
    """`build` makes other pixels for another UID, so a mix-up would show."""
    received, other = build.ct(instance="a"), build.ct(instance="b" * 3)
    instance = outgoing(tmp_path, received, other)
    body = received[outgoing(tmp_path, received).body_offset :]
    assert part10(instance) == instance.header.data + body


def test_an_unchanged_deflated_instance_is_not_deflated_anew(tmp_path: Path) -> None:
    received = build.pydicom_file("image_dfl.dcm")
    instance = outgoing(tmp_path, received)
    assert instance.header.is_deflated
    assert part10(instance) == received
    stream = received[instance.header.meta_end :]
    assert len(stream) % 2 == 1
    assert data_set(instance) == stream + b"\0", "a fragment has an even number of bytes"


def test_a_deflated_instance_is_inflated_edited_and_deflated(
    tmp_path: Path, has_descriptor: bool
) -> None:
    received = build.ct(200, 300, transfer_syntax_uid=DEFLATED)
    edited = build.ct(200, 300, patient_id="ANOTHER-ID", transfer_syntax_uid=DEFLATED)
    instance = outgoing(tmp_path, received, edited, has_descriptor=has_descriptor)
    sent = data_set(instance)
    assert len(sent) % 2 == 0
    assert inflated(sent) == inflated(edited[instance.header.meta_end :])
    assert part10(instance) == instance.header.data[: instance.header.meta_end] + sent


def test_a_deflated_instance_is_the_same_each_time(tmp_path: Path) -> None:
    """A Delivery that is tried again must find its own bytes at the destination."""
    received = build.ct(transfer_syntax_uid=DEFLATED)
    edited = build.ct(patient_id="X", transfer_syntax_uid=DEFLATED)
    first, second = (outgoing(tmp_path, received, edited) for _ in range(2))
    assert part10(first) == part10(first) == part10(second)


def test_a_damaged_deflated_instance_is_said_to_be_damaged(tmp_path: Path) -> None:
    received = build.ct(300, 300, transfer_syntax_uid=DEFLATED)
    edited = build.ct(300, 300, patient_id="X", transfer_syntax_uid=DEFLATED)
    start = outgoing(tmp_path, received).header.meta_end
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    whole_blocks = deflater.compress(inflated(received[start:])) + deflater.flush(zlib.Z_FULL_FLUSH)
    no_block = b"\x07"  # BTYPE 11, which RFC 1951 3.2.3 reserves
    instance = outgoing(tmp_path, received[:start] + whole_blocks + no_block, edited)
    with pytest.raises(MalformedHeaderError):
        instance.part10_parts()


def test_a_cut_deflated_instance_is_said_to_be_cut(tmp_path: Path) -> None:
    received = build.ct(300, 300, transfer_syntax_uid=DEFLATED)
    instance = outgoing(tmp_path, received[:-100], build.ct(transfer_syntax_uid=DEFLATED))
    with pytest.raises(TruncatedInstanceError):
        instance.part10_parts()


def test_a_file_that_shrank_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(100))
    with pytest.raises(TruncatedInstanceError):
        list(FileRange(ReceivedFile(path), 50, 100).chunks())


def test_the_uids_are_those_of_the_edited_header(tmp_path: Path) -> None:
    edited = build.ct(instance="other", study="other")
    instance = outgoing(tmp_path, build.ct(), edited)
    header = Header.parse(edited, file_size=len(edited))
    assert instance.sop_instance_uid == header.text("SOPInstanceUID") == build.uid("other")
    assert instance.study_instance_uid == build.uid("other")
    assert instance.sop_class_uid == build.CT_IMAGE_STORAGE
    assert instance.transfer_syntax_uid == build.EXPLICIT_VR_LITTLE_ENDIAN
