"""Attributes after Pixel Data: rules do not see them, and must not let them out unnoticed."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pydicom
import pytest

from shared.dicom.body_elements import BodyElement, kept_ranges, without
from shared.dicom.data_set import MAX_HEADER_VALUE_BYTES
from shared.rules import compile_rulesets, parse_ruleset
from tests.unit.dicom.builders import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    Builder,
    small_instance,
)
from tests.unit.rules.cases import KEY, facts, header
from tests.unit.rules.whole_system import whole_system

CREATOR, NAME, SIGNATURES, PADDING = 0x7FE10010, 0x7FE11001, 0xFFFAFFFA, 0xFFFCFFFC
# Samples per Pixel, Rows, Columns, Bits Allocated and Stored, High Bit, Pixel Representation.
IMAGE = {0x02: 1, 0x10: 2, 0x11: 2, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}
RLE_LOSSLESS = "1.2.840.10008.1.2.5"


def received(transfer_syntax_uid: str) -> bytes:
    """An Instance that names its patient again after its pixels."""
    builder = Builder(transfer_syntax_uid)
    after = (
        builder.element(CREATOR, "LO", b"ACME"),
        builder.element(NAME, "PN", b"Doe^Jane"),
        builder.sequence(SIGNATURES, builder.item(), undefined=True),
        builder.element(PADDING, "OB", b"\0" * 8),
    )
    image = [
        builder.element(0x00280000 | element, "US", struct.pack(builder.order + "H", value))
        for element, value in IMAGE.items()
    ]
    image.insert(1, builder.element(0x00280004, "CS", b"MONOCHROME2 "))
    return small_instance(builder, *image, after=b"".join(after))


def sent(tmp_path: Path, patch: pytest.MonkeyPatch, data: bytes, *actions: dict[str, Any]) -> Any:
    """The system after it has had the Instance under one rule with these actions."""
    rule = {"name": "r", "actions": list(actions), "destinations": ["a"]}
    document = {"name": "s", "execution_mode": "ALL_MATCHES", "rules": [rule]}
    with whole_system(document, tmp_path, patch) as system:
        system.send_file(data, facts())
        failed = [e.data["message"] for e in system.ports.exceptions.list().documents]
        if failed:
            return failed
        return pydicom.dcmread(io.BytesIO(system.delivered("a")))


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_deleting_what_is_private_deletes_it_after_pixel_data_too(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that a vendor repeats there would leave with an Instance that seems de-identified."""
    data = received(syntax)
    before = pydicom.dcmread(io.BytesIO(data))
    after = sent(tmp_path, monkeypatch, data, {"type": "delete", "pattern": "private"})
    assert {CREATOR, NAME} <= set(before.keys())
    assert set(before.keys()) - set(after.keys()) == {CREATOR, NAME}
    assert after.PixelData == before.PixelData


def test_keeping_only_some_keeps_nothing_else_after_pixel_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = {"type": "keep_only", "tags": ["PatientID", "DigitalSignaturesSequence"]}
    after = sent(tmp_path, monkeypatch, received(EXPLICIT_LE), action)
    assert [tag for tag in after if tag.tag > 0x7FE00010] == [after[SIGNATURES], after[PADDING]]


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_of_one_that_is_broken_nothing_is_left(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it ends nobody can tell, so it goes to the end of the file."""
    builder = Builder(syntax)
    inner = builder.element(NAME, "PN", b"Doe^Jane")
    not_items = builder.sequence(NAME, inner, inner, undefined=True)
    after = builder.element(CREATOR, "LO", b"ACME") + not_items
    data = small_instance(builder, after=after)
    action = {"type": "delete", "pattern": "private"}
    delivered = sent(tmp_path, monkeypatch, data, action)
    assert list(delivered.keys())[-1] == 0x7FE00010
    assert delivered.PixelData == b"\1\2\3\4"


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE])
def test_the_length_of_a_group_goes_with_any_of_it(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be wrong from then on (PS3.5 7.2)."""
    builder = Builder(syntax)
    after = builder.element(CREATOR, "LO", b"ACME") + builder.element(NAME, "PN", b"Doe^Jane")
    length = builder.element(0x7FE10000, "UL", struct.pack("<L", len(after)))
    data = small_instance(builder, after=length + after)
    action = {"type": "delete", "tag": "(7FE1,1001)"}
    delivered = sent(tmp_path, monkeypatch, data, action)
    assert [tag for tag in delivered if tag.tag > 0x7FE00010] == [delivered[CREATOR]]


@pytest.mark.parametrize("syntax", [RLE_LOSSLESS, IMPLICIT_LE, DEFLATED_LE])
def test_what_is_transcoded_lacks_them_too(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions = (
        {"type": "delete", "pattern": "(7FE1,1001)"},
        {"type": "transcode", "transfer_syntax": syntax},
    )
    after = sent(tmp_path, monkeypatch, received(EXPLICIT_LE), *actions)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert CREATOR in after
    assert NAME not in after


@pytest.mark.parametrize(
    "action",
    [
        {"type": "set", "tag": "PatientComments", "value": "x"},
        {"type": "set", "tag": "PatientName", "value": "x"},
        {"type": "set", "tag": '(0009,"OURS",01)', "value": "x"},
        {"type": "copy", "from": "PatientComments", "to": "PatientID"},
        {"type": "delete", "tag": "RequestAttributesSequence[0].RequestedProcedureID"},
        {"type": "delete", "tag": '(0031,"ACME",20)'},
        {"type": "delete", "pattern": "private"},
        {"type": "shift", "days": 1},
    ],
)
def test_a_rule_that_needs_what_a_value_too_large_keeps_from_it_fails(
    action: dict[str, Any],
) -> None:
    """The Header ends there; doing nothing, or the Attribute twice, would go unnoticed."""
    beyond = frozenset({0x00091010, 0x00104000, 0x00311020, 0x00400275})
    document = {"name": "s", "rules": [{"name": "r", "actions": [action]}]}
    program = compile_rulesets([parse_ruleset(document)], key=KEY)
    decision = program.evaluate(header(PatientID="1"), facts(beside_pixels=beyond))
    (failure,) = decision.failures
    assert "the Body" in failure.reason
    assert program.evaluate(header(PatientID="1"), facts()).failures == ()


def test_nothing_is_put_before_a_value_too_large_that_belongs_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers that stop at what is out of order would never see the document."""
    builder = Builder()
    document = builder.element(0x00420011, "OB", bytes(MAX_HEADER_VALUE_BYTES + 2))
    mime_type = builder.element(0x00420012, "LO", b"application/pdf ")
    data = small_instance(builder, document, mime_type)
    action = {"type": "set", "tag": "PatientName", "value": "New"}
    after = sent(tmp_path, monkeypatch, data, action)
    assert after.PatientName == "New"
    assert list(after.keys()) == sorted(after.keys())
    assert "OriginalAttributesSequence" not in after
    assert "EncapsulatedDocument" in after


def test_streams_lose_what_is_cut_wherever_their_pieces_end() -> None:
    data = bytes(range(40))
    cut = [BodyElement(1, 20, 25), BodyElement(2, 12, 14), BodyElement(3, 25, 31)]
    wanted = data[:2] + data[4:10] + data[21:]
    kept = kept_ranges(10, 50, cut)
    assert b"".join(data[start - 10 : start - 10 + size] for start, size in kept) == wanted
    for size in range(1, 41):
        pieces = (data[at : at + size] for at in range(0, 40, size))
        assert b"".join(without(pieces, 10, cut)) == wanted
