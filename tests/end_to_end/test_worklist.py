"""dcmtk's findscu asks for worklists: of its own wlmscpfs, of the gateway over the same files, and
of the gateway in front of wlmscpfs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from shared.adapters.archives import Archives
from shared.config.entities import Configuration
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import MemoryReceiver, running_gateway
from tests.peers import LOOPBACK, _listens, _Peer, free_port

pytestmark = [
    pytest.mark.peer("dcmtk"),
    pytest.mark.skipif(shutil.which("wlmscpfs") is None, reason="dcmtk is not installed"),
]

SYNTAX = "1.2.840.10008.1.2.1"
STEP = "(0040,0100)[0]"
# Patient ID, name, station, modality, date, time.
STEPS = (
    ("P1", "JONES^ANN", "CT1", "CT", "20261121", "083000"),
    ("P2", "JONES^BOB", "CT1", "CT", "20261121", "151500"),
    ("P3", "SMITH^BOB", "MR1", "MR", "20261122", "070000"),
    ("P4", "ADAMS^EVE", "MR1", "MR", "20261123", "120000"),
)


class Wlmscpfs(_Peer):
    """dcmtk's worklist SCP; its AE Title is that of the folder below `folder`."""

    program = "wlmscpfs"

    def _command(self) -> tuple[list[str], dict[str, str]]:
        self.port = free_port()
        return (
            [self.program, "-s", "-csk", "-dfr", "-dfp", str(self.folder), str(self.port)],
            dict(os.environ),
        )

    def _is_ready(self) -> bool:
        return _listens(self.port)


@pytest.fixture(scope="module")
def worklists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose `worklists/RIS` has a file for each step."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "worklists" / "RIS"
    folder.mkdir(parents=True)
    (folder / "lockfile").touch()
    for row in STEPS:
        data_set, item = Dataset(), Dataset()
        data_set.SpecificCharacterSet = "ISO_IR 100"
        data_set.PatientID, data_set.PatientName = row[:2]
        data_set.AccessionNumber = f"A{row[0]}"
        data_set.StudyInstanceUID = f"1.2.826.0.1.3680043.10.1.{row[0][1:]}"
        item.ScheduledStationAETitle, item.Modality = row[2:4]
        item.ScheduledProcedureStepStartDate, item.ScheduledProcedureStepStartTime = row[4:]
        item.ScheduledProcedureStepID = f"S{row[0]}"
        data_set.ScheduledProcedureStepSequence = [item]
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = UID(SYNTAX)
        data_set.preamble = bytes(128)
        data_set.save_as(folder / f"{row[0]}.wl")
    return home


@pytest.fixture(scope="module")
def wlmscpfs(worklists: Path) -> Iterator[Wlmscpfs]:
    with Wlmscpfs(worklists / "worklists") as peer:
        yield peer


@contextmanager
def showing(home: Path, **worklist: Any) -> Iterator[int]:
    """A gateway that shows that worklist; its port."""
    document = {"worklists": [{"name": "ris", **worklist}]}
    configuration = Configuration.model_validate_json(json.dumps(document))
    archives = Archives(lambda: configuration, MemorySecrets(), FakeClock(), home)
    with running_gateway(MemoryReceiver(), archives, worklist="ris") as (_, port):
        yield port


def asked(folder: Path, port: int, *keys: str) -> list[Dataset]:
    """What findscu is given."""
    folder.mkdir()
    options = ["-W", "-X", "-od", str(folder), "-aet", "CT1", "-aec", "RIS"]
    for key in ("PatientID", "PatientName", f"{STEP}.Modality", *keys):
        options += ["-k", key]
    done = subprocess.run(
        ["findscu", "-d", *options, LOOPBACK, str(port)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "0x0000: Success: Matching is complete" in done.stderr, done.stderr
    return [pydicom.dcmread(path, force=True) for path in sorted(folder.glob("*.dcm"))]


QUERIES: Sequence[Sequence[str]] = (
    (),
    (f"{STEP}.ScheduledStationAETitle=CT1",),
    (f"{STEP}.Modality=MR", f"{STEP}.ScheduledProcedureStepStartDate=20261122"),
    (f"{STEP}.ScheduledProcedureStepStartTime=0800-1300",),
    (
        f"{STEP}.ScheduledProcedureStepStartDate=20261121-20261122",
        f"{STEP}.ScheduledProcedureStepStartTime=1200-0800",
    ),
    ("PatientName=*^BOB", f"{STEP}.Modality=CT"),
    ("PatientID=NOBODY",),
)


def test_the_gateway_finds_what_wlmscpfs_finds_in_the_same_files(
    worklists: Path, wlmscpfs: Wlmscpfs, tmp_path: Path
) -> None:
    in_front = {"type": "dimse", "host": LOOPBACK, "port": wlmscpfs.port, "ae_title": "RIS"}
    with (
        showing(worklists, type="folder", path="RIS") as own,
        showing(worklists, **in_front) as forwarding,
    ):
        for number, keys in enumerate(QUERIES):
            found = {
                name: sorted(
                    str(one.PatientID) for one in asked(tmp_path / f"{name}-{number}", port, *keys)
                )
                for name, port in (
                    ("dcmtk", wlmscpfs.port),
                    ("folder", own),
                    ("forwarded", forwarding),
                )
            }
            assert found["folder"] == found["dcmtk"], keys
            assert found["forwarded"] == found["dcmtk"], keys


def test_every_key_is_answered_in_its_sequence(worklists: Path, tmp_path: Path) -> None:
    with showing(worklists, type="folder", path="RIS") as port:
        [step] = asked(
            tmp_path / "one",
            port,
            "PatientID=P3",
            "StudyInstanceUID",
            "RequestedProcedureDescription",
            f"{STEP}.ScheduledProcedureStepStartDate",
            f"{STEP}.ScheduledPerformingPhysicianName",
        )
    assert step.PatientName == "SMITH^BOB"
    assert step.StudyInstanceUID == "1.2.826.0.1.3680043.10.1.3"
    assert step.RequestedProcedureDescription in ("", None)
    [item] = step.ScheduledProcedureStepSequence
    assert item.ScheduledProcedureStepStartDate == "20261122"
    assert str(item.ScheduledPerformingPhysicianName) == ""
