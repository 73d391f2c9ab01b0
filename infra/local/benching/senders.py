"""Storage SCUs in processes of their own: `python -m infra.local.benching.senders NAME PORT`.

The files' names come on standard input; seconds for all, from the first byte of the first Instance
to the last answer, and the growth of the process's memory go to standard output as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local.benching.programs import peak_mib

OURS, PYNETDICOM = "ours", "pynetdicom"
_TITLE = "ANY"


def _ours(port: int, files: Sequence[Path]) -> Callable[[], None]:
    from shared.adapters.destinations.dimse import StorageScpDestination
    from shared.adapters.embedded.object_store import FolderObjectStore
    from shared.dicom.edit import HeaderEdit, apply_changes
    from shared.dicom.header import Header, read_header
    from shared.dicom.outgoing import OutgoingInstance

    store = FolderObjectStore(files[0].parent)
    with store.open(files[0].name) as reader:
        edit = HeaderEdit(read_header(reader))
    edit.set("PatientName", ["ANON^ONE"], by="bench")
    edit.set("PatientID", ["ANON1"], by="bench")
    edit.set("InstitutionName", ["ELSEWHERE"], by="bench")
    edit.delete("PatientBirthDate", by="bench")
    edit.set("ClinicalTrialSponsorName", ["BENCH"], by="bench")
    changes = edit.changes()
    destination = StorageScpDestination(
        "bench", host="127.0.0.1", port=port, called_ae_title=_TITLE, calling_ae_title="BENCH"
    )

    def send() -> None:
        for path in files:
            with store.open(path.name) as reader:
                received = read_header(reader)
                # As it comes in a message.
                header = Header.parse(received.data, body_size=reader.size - received.body_offset)
                instance = OutgoingInstance(
                    header=apply_changes(header, changes),
                    reader=reader,
                    body_offset=received.body_offset,
                    unchanged=False,
                )
                destination.deliver(instance)

    return send


def _pynetdicom(port: int, files: Sequence[Path]) -> Callable[[], None]:
    from pydicom import dcmread
    from pynetdicom import AE, _config

    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True
    meta = dcmread(files[0], stop_before_pixels=True).file_meta
    application = AE("BENCH")
    application.dimse_timeout = 5
    application.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)

    def send() -> None:
        association = application.associate("127.0.0.1", port, ae_title=_TITLE)
        for path in files:
            while not association.send_c_store(path):
                # Its own reactor thread took the answer, which happens under load.
                association.abort()
                association = application.associate("127.0.0.1", port, ae_title=_TITLE)
        association.release()

    return send


def main() -> None:
    """Send as the command line says."""
    name, port = sys.argv[1], int(sys.argv[2])
    files = [Path(line) for line in sys.stdin.read().splitlines()]
    send = {OURS: _ours, PYNETDICOM: _pynetdicom}[name](port, files)
    before_mib = peak_mib(os.getpid())
    began_s = time.perf_counter()
    send()
    seconds = time.perf_counter() - began_s
    growth_mib = peak_mib(os.getpid()) - before_mib
    print(json.dumps({"seconds": seconds, "growth_mib": growth_mib}))


if __name__ == "__main__":
    main()
