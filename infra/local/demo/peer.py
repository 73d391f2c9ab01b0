"""The PACS of the demo: a stock pynetdicom Storage SCP, which shares no code with our gateway."""

from __future__ import annotations

import logging
from pathlib import Path

from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from infra.local.demo.plan import PACS_AE_TITLE

_TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000]


class StockPeer:
    """Writes each data set that it is sent to `folder`, as `<SOP Instance UID>.dcm`."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Listen; returns at once."""
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        self._folder.mkdir(parents=True)
        ae = AE(ae_title=PACS_AE_TITLE)
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            ae.add_supported_context(context.abstract_syntax, _TRANSFER_SYNTAXES)
        server = ae.start_server(
            ("127.0.0.1", self._port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        assert isinstance(server, ThreadedAssociationServer)
        self._server = server

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()

    def _store(self, event: Event) -> int:
        assert isinstance(event.request, C_STORE)
        name = f"{event.request.AffectedSOPInstanceUID}.dcm"
        (self._folder / name).write_bytes(event.encoded_dataset())
        return 0x0000
