"""A small HTTP port that says how this gateway is: to people, and to whoever hosts it.

The host asks `/live` and starts the gateway anew where that may help. A listener that cannot listen
is told of by `/health` alone: starting anew would cost the associations of all others.
The port of DICOM is no place to ask: a peer that connects and says nothing is a failed association.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_SILENT_FOR_S = 5.0

# What is wrong, in a few words; "" for nothing.
Fault = Callable[[], str]
# What there is to say besides; empty for nothing.
Shown = Callable[[], Mapping[str, Any]]


class HealthPort:
    """Answers `GET /health` and `GET /live` with 200, or with 503 and what is wrong. A context
    manager.
    """

    def __init__(
        self, host: str, port: int, fault: Fault, lifeless: Fault, spool: Shown = dict
    ) -> None:
        """`fault` is whatever is wrong, `lifeless` what starting anew may mend; `spool` says what
        waits on a gateway on premises. Port 0 chooses a free one.

        Raises: OSError if it cannot listen.
        """
        asked = {"/health": fault, "/live": lifeless}

        class Handler(BaseHTTPRequestHandler):
            timeout = _SILENT_FOR_S

            def do_GET(self) -> None:
                is_known = self.path in asked
                words = asked[self.path]() if is_known else "there are /health and /live alone"
                status = 200 if not words else 503 if is_known else 404
                said = {"status": "ok" if not words else "failed", "fault": words}
                told = spool() if self.path == "/health" else {}
                body = json.dumps({**said, "spool": told} if told else said)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: it is asked every few seconds, and clients write the request line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
