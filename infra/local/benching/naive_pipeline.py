"""The router that pynetdicom and pydicom lead to: receive, change three tags, send on.

`python -m infra.local.benching.naive_pipeline PORT DESTINATION_PORT`. It decodes what comes, keeps
it in memory, and forwards over one association that it keeps: nothing is durable, checked or
recorded.
"""

from __future__ import annotations

import queue
import sys
import threading

from pydicom import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.association import Association

_REPLY_WITHIN_S = 2.0


def main() -> None:
    """Serve until killed."""
    port, destination_port = map(int, sys.argv[1:])
    _config.LOG_HANDLER_LEVEL = "none"
    received: queue.Queue[Dataset] = queue.Queue()

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        received.put(dataset)
        return 0x0000

    threading.Thread(target=_forward, args=(received, destination_port), daemon=True).start()
    application = AE("ANY")
    application.maximum_pdu_size = 131072
    for context in AllStoragePresentationContexts:
        application.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    application.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


def _forward(received: queue.Queue[Dataset], port: int) -> None:
    association: Association | None = None
    while True:
        dataset = received.get()
        dataset.PatientName = "ANON^ONE"
        dataset.InstitutionName = "ELSEWHERE"
        dataset.AccessionNumber = f"PFX{dataset.AccessionNumber}"
        while True:
            if association is None or not association.is_established:
                association = _associate(dataset, port)
            try:
                status = association.send_c_store(dataset)
            except (RuntimeError, ValueError):
                status = None
            if status:
                break
            # pynetdicom's own reactor thread took the reply: send again.
            association.abort()


def _associate(dataset: Dataset, port: int) -> Association:
    application = AE("NAIVE")
    application.dimse_timeout = _REPLY_WITHIN_S
    application.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    return application.associate("127.0.0.1", port, ae_title="ANY")


if __name__ == "__main__":
    main()
