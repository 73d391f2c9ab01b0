"""dcmtk's Query/Retrieve SCUs against the gateway, in front of Orthanc's DICOMweb and a folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from shared.adapters.archives import Archives
from shared.config.entities import Configuration
from tests.certificates import Authority
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import MemoryReceiver, running_gateway
from tests.peers import OrthancPeer, StartStorescp, free_port

pytest_plugins = ("tests.peers",)
pytestmark = [
    pytest.mark.peer("dcmtk"),
    pytest.mark.peer("orthanc"),
    pytest.mark.skipif(shutil.which("findscu") is None, reason="dcmtk is not installed"),
]

STUDY = "1.2.826.0.1.3680043.10.1.{}"


def instances() -> list[Dataset]:
    """Two Studies of JONES^ANN with 2 x 2 and 1 x 1 Instances, and one of SMITH^BOB."""
    made: list[Dataset] = []
    for patient, name, study, date, shape in (
        ("P1", "JONES^ANN", 1, "20240105", (2, 2)),
        ("P1", "JONES^ANN", 2, "20250607", (1, 1)),
        ("P2", "SMITH^BOB", 3, "20250608", (1, 1)),
    ):
        for series in range(shape[0]):
            for number in range(shape[1]):
                data_set = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
                uid = STUDY.format(study)
                data_set.PatientID, data_set.PatientName = patient, name
                data_set.StudyInstanceUID, data_set.StudyDate = uid, date
                data_set.SeriesInstanceUID = f"{uid}.{series}"
                data_set.SOPInstanceUID = f"{uid}.{series}.{number}"
                data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
                data_set.AccessionNumber = f"A{study}"
                data_set.InstanceNumber = number
                made.append(data_set)
    return made


@pytest.fixture(params=["orthanc", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The Instances in a store of each kind; what the configuration says of it."""
    if request.param == "orthanc":
        return at(request.getfixturevalue("filled").dicomweb_url)
    folder = tmp_path / "storage" / "archive"
    for data_set in instances():
        path = folder / data_set.StudyInstanceUID / f"{data_set.SOPInstanceUID}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        data_set.save_as(path)
    return {"name": "archive", "type": "filesystem", "path": str(folder)}


def at(url: str) -> dict[str, Any]:
    """A DICOMweb store."""
    return {"name": "archive", "type": "dicomweb", "base_url": url}


@pytest.fixture
def filled(orthanc: OrthancPeer, tmp_path: Path) -> OrthancPeer:
    for data_set in instances():
        path = tmp_path / "sent.dcm"
        data_set.save_as(path)
        requests.post(
            f"{orthanc.rest_url}/instances", data=path.read_bytes(), timeout=30
        ).raise_for_status()
    return orthanc


@contextmanager
def in_front_of(store: Mapping[str, Any], home: Path, **services: Any) -> Iterator[int]:
    """A gateway in front of that store, which takes nothing itself; its port."""
    configuration = Configuration.model_validate_json(json.dumps({"destinations": [store]}))
    archives = Archives(
        lambda: configuration, MemorySecrets(), FakeClock(), home, storage_root=home
    )
    with running_gateway(
        MemoryReceiver(), archives, storage=False, query_retrieve={"store": "archive", **services}
    ) as (_, port):
        yield port


def scu(program: str, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, "-d", "-aet", "PEER", "-aec", "AXIOM", *options, "127.0.0.1", str(port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def found(folder: Path, port: int, model: str, level: str, *keys: str) -> list[Dataset]:
    """What findscu is given, as data sets."""
    folder.mkdir()
    options = [model, "-X", "-od", str(folder), "-k", f"QueryRetrieveLevel={level}"]
    for key in keys:
        options += ["-k", key]
    done = scu("findscu", port, *options)
    assert "0x0000: Success: Matching is complete" in done.stderr, done.stderr
    return [pydicom.dcmread(path, force=True) for path in sorted(folder.glob("*.dcm"))]


def test_findscu_finds_studies_as_its_keys_say(store: dict[str, Any], tmp_path: Path) -> None:
    with in_front_of(store, tmp_path / "home") as port:

        def uids(*keys: str) -> set[str]:
            folder = tmp_path / f"found-{len(list(tmp_path.iterdir()))}"
            matches = found(folder, port, "-S", "STUDY", "StudyInstanceUID", *keys)
            return {str(match.StudyInstanceUID)[-1] for match in matches}

        assert uids() == {"1", "2", "3"}
        assert uids("PatientID=P1") == {"1", "2"}
        assert uids("PatientName=JONES*") == {"1", "2"}
        assert uids("PatientName=SM?TH^BOB") == {"3"}
        assert uids("StudyDate=20250101-") == {"2", "3"}
        assert uids("StudyDate=20240105", "PatientName=JONES^ANN") == {"1"}
        assert uids(f"StudyInstanceUID={STUDY.format(1)}\\{STUDY.format(3)}") == {"1", "3"}
        assert uids("AccessionNumber=A2") == {"2"}
        assert uids("PatientID=nobody") == set()


def test_every_key_asked_for_is_answered(store: dict[str, Any], tmp_path: Path) -> None:
    with in_front_of(store, tmp_path / "home") as port:
        [study] = found(
            tmp_path / "study",
            port,
            "-S",
            "STUDY",
            "AccessionNumber=A1",
            "PatientName",
            "ModalitiesInStudy",
            "NumberOfStudyRelatedSeries",
            "NumberOfStudyRelatedInstances",
            "InstitutionalDepartmentName",
        )
        assert str(study.PatientName) == "JONES^ANN"
        assert study.ModalitiesInStudy == "CT"
        assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 4)
        assert study.InstitutionalDepartmentName in ("", None)
        assert study.RetrieveAETitle == "AXIOM"
        [patient] = found(
            tmp_path / "patient",
            port,
            "-P",
            "PATIENT",
            "PatientID=P1",
            "NumberOfPatientRelatedStudies",
            "NumberOfPatientRelatedInstances",
        )
        assert patient.NumberOfPatientRelatedStudies == 2
        assert patient.NumberOfPatientRelatedInstances == 5
        series = found(
            tmp_path / "series",
            port,
            "-S",
            "SERIES",
            f"StudyInstanceUID={STUDY.format(1)}",
            "SeriesInstanceUID",
            "NumberOfSeriesRelatedInstances",
        )
        assert [one.NumberOfSeriesRelatedInstances for one in series] == [2, 2]
        images = found(
            tmp_path / "images",
            port,
            "-S",
            "IMAGE",
            f"StudyInstanceUID={STUDY.format(1)}",
            f"SeriesInstanceUID={STUDY.format(1)}.1",
            "SOPInstanceUID",
            "InstanceNumber=1",
        )
        assert [str(one.SOPInstanceUID) for one in images] == [f"{STUDY.format(1)}.1.1"]


def test_movescu_has_a_study_sent_over_one_association(
    store: dict[str, Any], storescp: StartStorescp, tmp_path: Path
) -> None:
    scp = storescp()
    moves = {"STORESCP": {"host": "127.0.0.1", "port": scp.port}}
    with in_front_of(store, tmp_path / "home", move_destinations=moves) as port:
        done = scu(
            "movescu",
            port,
            *("-S", "-aem", "STORESCP", "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={STUDY.format(1)}"),
        )
    assert done.returncode == 0, done.stderr
    received = [pydicom.dcmread(path) for path in scp.files()]
    assert {str(one.SOPInstanceUID) for one in received} == {
        f"{STUDY.format(1)}.{series}.{number}" for series in range(2) for number in range(2)
    }


def test_sub_operations_go_out_under_tls_to_whom_that_is_configured_for(
    filled: OrthancPeer, storescp: StartStorescp, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("storescp")
    scp = storescp("+tls", str(key), str(certificate), "-ic")
    trusting, stranger = {"trusted_file": str(authority.file)}, Authority(tmp_path, "stranger")
    place = {"host": "127.0.0.1", "port": scp.port}
    moves = {
        "STORESCP": {**place, "tls": trusting},
        "DOUBTED": {**place, "tls": {"trusted_file": str(stranger.file)}},
    }
    wanted = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY.format(1)}")
    with in_front_of(at(filled.dicomweb_url), tmp_path, move_destinations=moves) as port:
        done = scu("movescu", port, "-S", "-aem", "STORESCP", *wanted)
        doubted = scu("movescu", port, "-S", "-aem", "DOUBTED", *wanted)
    assert done.returncode == 0, done.stderr
    assert len(scp.files()) == 4
    assert "0xa702" in doubted.stderr.lower(), doubted.stderr


def test_getscu_is_given_a_study_on_its_own_association(
    store: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "got"
    folder.mkdir()
    with in_front_of(store, tmp_path / "home") as port:
        done = scu(
            "getscu",
            port,
            *("-S", "-od", str(folder), "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={STUDY.format(1)}"),
        )
    assert done.returncode == 0, done.stderr
    assert len(list(folder.iterdir())) == 4


def test_a_destination_that_nobody_knows_is_refused(orthanc: OrthancPeer, tmp_path: Path) -> None:
    with in_front_of(at(orthanc.dicomweb_url), tmp_path) as port:
        done = scu(
            "movescu",
            port,
            *("-S", "-aem", "NOBODY", "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={STUDY.format(1)}"),
        )
    assert "0xa801" in done.stderr.lower(), done.stderr


def test_a_store_that_is_down_is_a_status_and_the_next_request_is_served(tmp_path: Path) -> None:
    with in_front_of(at(f"http://127.0.0.1:{free_port()}/dicom-web"), tmp_path) as port:
        done = scu(
            "findscu", port, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"
        )
        assert "0xa700" in done.stderr, done.stderr
        assert scu("echoscu", port).returncode == 0
