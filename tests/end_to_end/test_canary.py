"""One patient whose name occurs nowhere else goes through every way in and out of the running
system, and is seen by nobody but those whom the Values are for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from shared import bootstrap
from shared.client import ApiError, Client
from shared.environment import Environment
from tests.associations import established
from tests.conftest import StartAxiom
from tests.data import build
from tests.otlp_collector import collecting
from tests.peers import LOOPBACK, free_port
from tests.running import API_KEY, wait_until
from tests.syslog_repository import Repository
from tests.unit.destinations.scripted_http import Answer, Request, ScriptedHttp
from tests.unit.web_fakes import related

CANARY = "CANARY^YELLOW"
STUDY, BROKEN_STUDY = build.uid("study"), build.uid("broken")


def instance(name: str, *, is_valid: bool = True) -> bytes:
    """A file with the canary in each Attribute that says who is examined."""
    changes: dict[int, bytes | None] = {
        tag: build.element(tag, vr, CANARY)
        for tag, vr in (
            *((0x00080050, "SH"), (0x00080090, "PN"), (0x00081030, "LO")),
            *((0x0008103E, "LO"), (0x00100010, "PN")),
        )
    }
    if not is_valid:
        changes[0x00100030] = build.element(0x00100030, "DA", CANARY)
        changes[build.SERIES_INSTANCE_UID] = build.element(0x0020000E, "UI", CANARY)
    return build.ct(instance=name, patient_id=CANARY, changes=changes)


def shown(study: str, **more: Any) -> dict[str, Any]:
    """One match of a DICOMweb store."""
    return {
        "0020000D": {"vr": "UI", "Value": [study]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": CANARY}]},
        "00100020": {"vr": "LO", "Value": [CANARY]},
        **more,
    }


def of_instance(study: str) -> dict[str, Any]:
    return shown(
        study,
        **{
            "0020000E": {"vr": "UI", "Value": [build.uid("ct-series")]},
            "00080016": {"vr": "UI", "Value": [build.CT_IMAGE_STORAGE]},
            "00080018": {"vr": "UI", "Value": [build.uid("stored")]},
        },
    )


def store(request: Request) -> Answer:
    """A DICOMweb store with two Studies, of which it gives one and fails over the other."""
    path, _, query = request.path.partition("?")
    if BROKEN_STUDY in path:
        return Answer(500, CANARY.encode(), {"Content-Type": f"text/{CANARY}", "Warning": CANARY})
    if request.headers.get("Accept", "").startswith("multipart/related"):
        kind = "multipart/related; type=application/dicom; boundary=B"
        return Answer(200, related(instance("stored")), {"Content-Type": kind})
    found = [shown(STUDY), shown(BROKEN_STUDY)]
    if path.endswith(("/instances", "/series")):
        found = [of_instance(BROKEN_STUDY if BROKEN_STUDY in request.path else STUDY)]
    body = json.dumps(found if "offset=0" in query or "offset" not in query else []).encode()
    return Answer(200, body, {"Content-Type": "application/dicom+json"})


def refusing(request: Request) -> Answer:
    """A DICOMweb store that quotes what it was asked."""
    return Answer(400, json.dumps({"asked": request.path, "of": CANARY}).encode())


@contextmanager
def taking() -> Iterator[tuple[int, list[str]]]:
    """A Storage SCP: its port, and the names that it was sent."""
    ae, taken = AE("TAKER"), []
    ae.add_supported_context(build.CT_IMAGE_STORAGE)

    def take(event: Any) -> int:
        taken.append(str(event.dataset.PatientName))
        return 0x0000

    server: Any = ae.start_server(
        (LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)]
    )
    try:
        yield server.server_address[1], taken
    finally:
        server.shutdown()


def worklist_file() -> bytes:
    """A scheduled procedure step as dcmtk's wlmscpfs keeps it."""
    step, item, file = Dataset(), Dataset(), io.BytesIO()
    step.PatientID = step.PatientName = step.AccessionNumber = CANARY
    item.Modality, item.ScheduledStationAETitle = "CT", "CT1"
    item.ScheduledProcedureStepStartDate = "20261121"
    step.ScheduledProcedureStepSequence = [item]
    pydicom.dcmwrite(file, step, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return file.getvalue()


def configure(home: Path, store_url: str, refusing_url: str, taker: int) -> dict[str, int]:
    """Ports of listeners: one shows the folder and the store, the other the table."""
    ports = {"folder": free_port(), "table": free_port()}
    folder, tables = home / "worklists" / "today", home / "crosswalks"
    for made in (folder, tables):
        made.mkdir(parents=True)
    (folder / "1.wl").write_bytes(worklist_file())
    (folder / f"{CANARY}.wl").write_bytes(bytes(range(256)))
    (tables / "steps.csv").write_text(f"mrn,name,begins\n{CANARY},{CANARY},{CANARY}\n")
    begins = "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate"
    embedded = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(home)}))
    embedded.configuration.apply(
        {
            "settings": {"min_free_bytes": 0},
            "crosswalk_sources": [{"name": "steps", "type": "csv", "path": "steps.csv"}],
            "worklists": [
                {"name": "folder", "type": "folder", "path": "today"},
                {
                    "name": "table",
                    "type": "table",
                    "source": "steps",
                    "columns": {"PatientID": "mrn", "PatientName": "name", begins: "begins"},
                },
            ],
            "destinations": [
                {"name": "archive", "type": "filesystem", "path": "archive"},
                {"name": "store", "type": "dicomweb", "base_url": store_url},
                {"name": "refusing", "type": "dicomweb", "base_url": refusing_url},
            ],
            "rulesets": [
                {
                    "name": "all",
                    "rules": [
                        {
                            "name": "all",
                            "conditions": [
                                {"type": "tag_equals", "tag": "Modality", "value": "CT"}
                            ],
                            "actions": [
                                {"type": "copy", "from": "PatientName", "to": "PatientComments"}
                            ],
                            "storage_backends": ["archive", "refusing"],
                        }
                    ],
                }
            ],
            "listeners": [
                {
                    "name": name,
                    "port": port,
                    "worklist": name,
                    "query_retrieve": {
                        "store": {"folder": "store", "table": "refusing"}[name],
                        "move_destinations": {"TAKER": {"host": LOOPBACK, "port": taker}},
                    },
                }
                for name, port in ports.items()
            ],
        },
        by="test",
    )
    return ports


def asked(port: int, model: Any, move_to: str = "", **keys: Any) -> tuple[list[Dataset], Dataset]:
    """The matches that an AE is shown, and the last response."""
    ae, wanted = AE("CT1"), Dataset()
    for wants in (
        ModalityWorklistInformationFind,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    ):
        ae.add_requested_context(wants)
    for keyword, value in keys.items():
        setattr(wanted, keyword, value)
    association = established(ae, port)
    if move_to:
        *pending, last = association.send_c_move(wanted, move_to, model)
    else:
        *pending, last = association.send_c_find(wanted, model)
    association.release()
    return [found for _, found in pending if found is not None], last[0]


def stored(port: int, instance: bytes) -> Dataset:
    """The response to a C-STORE."""
    ae, data_set = AE("CT1"), pydicom.dcmread(io.BytesIO(instance))
    ae.add_requested_context(build.CT_IMAGE_STORAGE, build.EXPLICIT_VR_LITTLE_ENDIAN)
    association = established(ae, port)
    response = association.send_c_store(data_set)
    association.release()
    return response


def test_nobody_else_sees_who_is_examined(axiom_up: StartAxiom, tmp_path: Path) -> None:
    """Not the logs, however much they say, nor traces, metrics, audit messages, errors or names of
    files; each way is seen to have brought the name where it belongs.
    """
    find, move = (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    )
    home = tmp_path / "home"
    seen: list[str] = []
    with (
        ScriptedHttp(store) as there,
        ScriptedHttp(refusing) as refuses,
        taking() as (taker, taken),
        collecting() as collector,
        closing(Repository()) as repository,
    ):
        ports = configure(home, there.url, refuses.url, taker)
        running = axiom_up(
            home,
            AXIOM_LOG_LEVEL="debug",
            AXIOM_OTLP_ENDPOINT=collector.url,
            OTEL_METRIC_EXPORT_INTERVAL="500",
            AXIOM_AUDIT_SYSLOG=f"tcp://{LOOPBACK}:{repository.port}",
        )

        for is_valid, status in ((True, 200), (False, 409)):
            answer = running.request(
                "POST",
                "/api/v1/dicomweb/studies",
                data=related(instance("stow", is_valid=is_valid)),
                headers={"Content-Type": "multipart/related; type=application/dicom; boundary=B"},
            )
            assert answer.status_code == status, answer.text
            seen.append(answer.text)
            response = stored(running.dimse_port, instance("stored", is_valid=is_valid))
            assert response.Status == {200: 0x0000, 409: 0xC000}[status]
            seen.append(str(response))

        step = Dataset()
        step.Modality = step.ScheduledProcedureStepStartDate = ""
        keys: dict[str, Any] = {
            "PatientName": "CANARY*",
            "PatientID": "",
            "ScheduledProcedureStepSequence": [step],
        }
        for port in ports.values():
            [found], last = asked(port, ModalityWorklistInformationFind, **keys)
            assert (found.PatientID, last.Status) == (CANARY, 0x0000)

        study = {"QueryRetrieveLevel": "STUDY", "PatientName": "CANARY*", "StudyInstanceUID": ""}
        found_studies, _ = asked(ports["folder"], find, **study)
        assert [one.PatientName for one in found_studies] == [CANARY, CANARY]
        _, last = asked(ports["table"], find, **study)
        assert last.Status == 0xC001
        seen.append(str(last))

        moving = {"QueryRetrieveLevel": "STUDY"}
        _, last = asked(ports["folder"], move, "TAKER", StudyInstanceUID=STUDY, **moving)
        assert (last.Status, taken) == (0x0000, [CANARY])
        for study_uid, status in ((BROKEN_STUDY, 0xA702), (CANARY, 0x0000)):
            _, last = asked(ports["folder"], move, "TAKER", StudyInstanceUID=study_uid, **moving)
            assert last.Status == status
            seen.append(str(last))

        with Client(running.url, API_KEY) as client:
            filters = {"PatientName": "CANARY*"}
            *_, summary = lines = list(client.browse({"filters": filters}))
            assert sum(one["type"] == "match" for one in lines) == 3
            assert {one["source"]: one["state"] for one in summary["sources"]} == {
                "@received": "done",
                "store": "done",
                "refusing": "failed",
            }
            seen += [str(one) for one in lines if one["type"] != "match"]
            for wrong in ({"StudyDate": CANARY}, {"PatientName": [CANARY, {}]}):
                with pytest.raises(ApiError) as refused:
                    list(client.browse({"filters": wrong}))
                seen.append(f"{refused.value!r} {refused.value.faults}")

        for path in ("/metrics", "/api/v1/audit", "/api/v1/exceptions", "/api/v1/destinations"):
            seen.append(running.request("GET", path).text)
        assert "destination-refused" in seen[-2]
        wait_until(lambda: any(b"data-browser" in one for one in repository.messages))
        assert running.stop() == 0
        assert {"receive", "deliver_instance"} <= {span.name for span in collector.spans}
        seen += [str(collector.bodies), str(repository.messages)]
    log = running.log()
    assert "a query cannot be answered" in log
    assert "a Series is not retrieved" in log
    kept = [str(path.relative_to(home)) for path in home.rglob("*")]
    seen += [log, *(path for path in kept if not path.startswith("worklists"))]
    assert [one for one in seen if "CANARY" in one or "YELLOW" in one] == []
