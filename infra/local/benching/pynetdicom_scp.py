"""The receiver that pynetdicom's documentation leads to: a handler that writes what came.

`python -m infra.local.benching.pynetdicom_scp PORT FOLDER`. All Storage SOP Classes in all Transfer
Syntaxes, as a router has to offer; everything else as it is by default, but without log handlers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.dimse_primitives import C_STORE


def main() -> None:
    """Serve until killed."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    _config.LOG_HANDLER_LEVEL = "none"

    def store(event: evt.Event) -> int:
        request = cast(C_STORE, event.request)
        path = folder / f"{request.AffectedSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    application = AE("ANY")
    application.maximum_associations = 100
    for context in AllStoragePresentationContexts:
        application.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    application.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
