"""Storage commitment, clean-up and a stop in the middle, in the system as people run it."""

from __future__ import annotations

import queue
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from tests.associations import established
from tests.data import build
from tests.peers import free_port
from tests.running import RunningAxiom, wait_until

CT = build.CT_IMAGE_STORAGE
WELL_KNOWN = "1.2.840.10008.1.20.1.1"


def test_what_is_committed_is_delivered_and_its_received_file_goes(tmp_path: Path) -> None:
    reports: queue.Queue[Dataset] = queue.Queue()

    def take(event: Any) -> tuple[int, None]:
        reports.put(event.event_information)
        return 0x0000, None

    handlers: Any = [(evt.EVT_N_EVENT_REPORT, take)]
    modality = AE("CT1")
    modality.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    modality.add_requested_context(CT, "1.2.840.10008.1.2.1")
    modality.add_requested_context(StorageCommitmentPushModel)
    port = free_port()
    server = modality.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        with RunningAxiom(tmp_path / "home") as axiom:
            axiom.configure(
                listeners=[
                    {
                        "name": "other",
                        "port": free_port(),
                        "commitment_peers": {"CT1": {"host": "127.0.0.1", "port": port}},
                    }
                ],
                settings={
                    "default_route": ["primary-storage"],
                    "min_free_bytes": 0,
                    "retention_s": 0.0,
                },
            )
            association = established(modality, axiom.dimse_port)
            request = Dataset()
            request.TransactionUID = "2.25.77"
            request.ReferencedSOPSequence = []
            for number in range(5):
                dataset = pydicom.dcmread(BytesIO(build.ct(instance=f"i{number}")))
                assert association.send_c_store(dataset).Status == 0x0000
                item = Dataset()
                item.ReferencedSOPClassUID = CT
                item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
                request.ReferencedSOPSequence.append(item)
            status, _ = association.send_n_action(
                request, 1, StorageCommitmentPushModel, WELL_KNOWN
            )
            assert status.Status == 0x0000
            association.release()
            report = reports.get(timeout=60)
            assert len(report.ReferencedSOPSequence) == 5
            assert "FailedSOPSequence" not in report
            stored = list((axiom.home / "storage").rglob("*.dcm"))
            assert len(stored) == 5
            received = axiom.home / "objects" / "received"
            wait_until(
                lambda: not list(received.rglob("*.dcm")), 40, "the received files are deleted"
            )
            told = axiom.get_all("/api/v1/clean-ups")
            assert sum(one["files"] for one in told) == 5
            assert axiom.stop() == 0
    finally:
        server.shutdown()
