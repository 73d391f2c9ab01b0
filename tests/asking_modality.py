"""A modality that stores Instances and asks for storage commitment (PS3.4 J)."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from tests.associations import established
from tests.data import build
from tests.peers import free_port

AE_TITLE = "CT1"

_WELL_KNOWN = "1.2.840.10008.1.20.1.1"


class AskingModality:
    """Listens on `port` for the reports of what it asked."""

    def __init__(self) -> None:
        self.port = free_port()
        self.reports: queue.Queue[Dataset] = queue.Queue()
        self.entity = AE(AE_TITLE)
        self.entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self.entity.add_requested_context(build.CT_IMAGE_STORAGE, build.EXPLICIT_VR_LITTLE_ENDIAN)
        self.entity.add_requested_context(StorageCommitmentPushModel)

    @property
    def listener(self) -> dict[str, Any]:
        """A listener that knows where reports to it go."""
        peer = {AE_TITLE: {"host": "127.0.0.1", "port": self.port}}
        return {"name": "committing", "port": free_port(), "commitment_peers": peer}

    def store_and_ask(self, dimse_port: int, instances: Sequence[bytes]) -> None:
        """All of it over one association; everything succeeds."""
        association = established(self.entity, dimse_port)
        request = Dataset()
        request.TransactionUID = generate_uid()
        request.ReferencedSOPSequence = []
        for instance in instances:
            dataset = pydicom.dcmread(BytesIO(instance))
            assert association.send_c_store(dataset).Status == 0x0000
            item = Dataset()
            item.ReferencedSOPClassUID = dataset.SOPClassUID
            item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
            request.ReferencedSOPSequence.append(item)
        status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, _WELL_KNOWN)
        assert status.Status == 0x0000
        association.release()

    def take(self, event: Any) -> tuple[int, None]:
        """Called with each report."""
        self.reports.put(event.event_information)
        return 0x0000, None


@contextmanager
def asking_modality() -> Iterator[AskingModality]:
    """One that listens while the block runs."""
    modality = AskingModality()
    handlers: Any = [(evt.EVT_N_EVENT_REPORT, modality.take)]
    server = modality.entity.start_server(
        ("127.0.0.1", modality.port), block=False, evt_handlers=handlers
    )
    assert server is not None
    try:
        yield modality
    finally:
        server.shutdown()
