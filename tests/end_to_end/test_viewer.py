"""Where the radiology department looks: OHIF shows a Study as it was routed, corrected."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from infra.local.sending import examine, send
from shared.adapters.destinations.association import Peer
from tests import ohif
from tests.peers import LOOPBACK, OrthancPeer
from tests.running import RunningAxiom, wait_until

SLICES = 3
STUDY = "2.25.990101"


def slices(folder: Path) -> list[Path]:
    """A Series of real pixels, and a name to be corrected."""
    paths = []
    for number in range(1, SLICES + 1):
        dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"{STUDY}.1"
        uid = UID(f"{STUDY}.1.{number}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [-158.1, -179.0, -75.7 + 5 * number]
        dataset.PatientName = "doe^jane"
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1])
    return paths


@pytest.mark.skipif(not OrthancPeer.is_installed(), reason="Orthanc is not installed")
@pytest.mark.skipif(not ohif.is_installed(), reason="OHIF is not installed")
def test_a_routed_study_is_in_the_list_and_its_pictures_are_shown_under_the_corrected_names(
    tmp_path: Path,
) -> None:
    with (
        OrthancPeer(tmp_path / "archive") as archive,
        RunningAxiom(tmp_path / "home") as axiom,
    ):
        axiom.configure(
            destinations=[
                {"name": "archive", "type": "dicomweb", "base_url": archive.dicomweb_url}
            ],
            settings={"default_route": ["archive"]},
            rulesets=[
                {
                    "name": "names",
                    "rules": [
                        {
                            "name": "in capitals",
                            "conditions": [
                                {"type": "tag_equals", "tag": "Modality", "value": "CT"}
                            ],
                            "actions": [
                                {"type": "upper", "tag": "PatientName"},
                                {"type": "set", "tag": "SeriesDescription", "value": "PLAIN"},
                                {"type": "route", "destination": "archive"},
                            ],
                        }
                    ],
                }
            ],
        )
        to_us = Peer(LOOPBACK, axiom.dimse_port, "AXIOM", "CT01", 131072, 60.0)
        results = list(send(map(examine, slices(tmp_path)), to_us))
        assert [one.dimse_status for one in results] == ["0000H"] * SLICES
        wait_until(lambda: len(archive.instance_ids()) == SLICES, what="delivery")
        seen = ohif.look_at(archive.dicomweb_url, STUDY, "DOE, JANE")
    assert "DOE, JANE" in seen.list
    assert "PLAIN" in seen.viewer
    assert f"(1/{SLICES})" in seen.viewer
    assert seen.greys >= 32
