"""What arrives is what was received with the recorded Changes made, and not a byte else.

Real files go through the whole system under rules that change them in many ways.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pydicom
import pytest

from shared.dicom.body_elements import is_of_body
from shared.dicom.edit import apply_changes, revert_changes
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.errors import PermanentError
from shared.pipeline.plans import Plan
from shared.rules.examples import STANDARD_TIME
from tests.unit.dicom.real_files import name_of, readable_files
from tests.unit.rules.cases import facts
from tests.unit.rules.test_real_files import RULES
from tests.unit.rules.whole_system import WholeSystem, whole_system

RULESET: dict[str, Any] = {
    "name": "s",
    "execution_mode": "ALL_MATCHES",
    "rules": [
        {"name": f"r{number}", **rule, "destinations": []} for number, rule in enumerate(RULES)
    ]
    + [
        {
            "name": "send",
            "destinations": [
                "a",
                {"name": "b", "actions": [{"type": "delete", "tag": "PatientID"}]},
            ],
        }
    ],
}
MAX_BYTES = 1 << 20
EVERY = 6  # of the files, which are many


class Arrived(NamedTuple):
    """One copy, and what it was made of."""

    name: str
    received: bytes
    delivered: bytes
    plan: Plan


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Arrived]]:
    with (
        pytest.MonkeyPatch.context() as patch,
        whole_system(RULESET, tmp_path_factory.mktemp("home"), patch) as system,
    ):
        yield list(_arrived(system))


def _arrived(system: WholeSystem) -> Iterator[Arrived]:
    small = [path for path in readable_files() if path.stat().st_size <= MAX_BYTES]
    for path in small[::EVERY]:
        received = path.read_bytes()
        try:
            system.send_file(received, facts(received_at=STANDARD_TIME))
        except PermanentError:
            continue  # refused at reception
        for plan in msgspec.convert(system.instance()["deliveries"], list[Plan]):
            key = f"{system.receipts[-1].receipt_id}:{plan.destination}"
            delivery = system.ports.documents.get("deliveries", key)
            assert delivery is not None
            if delivery.data["state"] != "delivered":
                # Some of these files are versions of each other, under one SOP Instance UID.
                assert delivery.data["code"] == "instance-conflict", delivery.data
                continue
            header = apply_changes(Header.parse(received, file_size=len(received)), plan.changes)
            uid = header.text("SOPInstanceUID")
            if not uid:
                continue  # a DICOMDIR
            (file,) = (system.home / "storage" / plan.destination).rglob(f"{uid}.dcm")
            yield Arrived(name_of(path), received, file.read_bytes(), plan)


def test_enough_of_them_arrive(arrived: list[Arrived]) -> None:
    assert len(arrived) >= 20
    assert all(one.plan.changes for one in arrived)


def test_the_recorded_changes_make_the_one_of_the_other(arrived: list[Arrived]) -> None:
    for one in arrived:
        received = Header.parse(one.received, file_size=len(one.received))
        delivered = Header.parse(one.delivered, file_size=len(one.delivered))
        assert apply_changes(received, one.plan.changes).data == delivered.data, one.name
        assert revert_changes(delivered, one.plan.changes).data == received.data, one.name
        if not received.is_deflated:
            body = one.received[received.body_offset :]
            left = one.delivered[delivered.body_offset :]
            if any(map(is_of_body, one.plan.changes)):
                assert len(left) < len(body), one.name
                assert body.startswith(left), one.name
            else:
                assert left == body, one.name


def test_no_byte_outside_the_changed_elements_and_group_lengths_differs(
    arrived: list[Arrived],
) -> None:
    for one in arrived:
        touched = {AttributePath.parse(change.path).steps[0].tag for change in one.plan.changes}
        before = _elements(Header.parse(one.received, file_size=len(one.received)), touched)
        after = _elements(Header.parse(one.delivered, file_size=len(one.delivered)), touched)
        assert before == after, one.name


def _elements(header: Header, touched: set[int]) -> list[bytes]:
    return [
        header.data[entry.start : entry.end]
        for data_set in (header.meta, header.data_set)
        for tag, entry in data_set.occurrences()
        if tag not in touched and tag & 0xFFFF
    ]


def test_pydicom_reads_what_arrives(arrived: list[Arrived]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in arrived:
            try:
                before = pydicom.dcmread(io.BytesIO(one.received))
                str(before)
            except Exception:
                continue
            after = pydicom.dcmread(io.BytesIO(one.delivered))
            assert str(after)
            assert after.StationName == "AXIOM", one.name
            assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
            assert after.get("PixelData") == before.get("PixelData"), one.name
            assert ("PatientID" in after) is ("PatientID" in before and one.plan.destination == "a")


@pytest.mark.peer("dcmtk")
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump is not installed")
def test_dcmdump_passes_what_it_passed_before(arrived: list[Arrived], tmp_path: Path) -> None:
    worse = [
        one.name
        for one in arrived
        if _complaints(one.delivered, tmp_path) and not _complaints(one.received, tmp_path)
    ]
    assert worse == []


def _complaints(data: bytes, folder: Path) -> str:
    file = folder / "file.dcm"
    file.write_bytes(data)
    done = subprocess.run(
        ["dcmdump", "--quiet", str(file)], capture_output=True, check=False, timeout=60
    )
    errors = done.stderr.decode(errors="replace")
    return errors if done.returncode or "E: " in errors else ""
