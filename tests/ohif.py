"""OHIF, the viewer, in front of a DICOMweb server, and what a browser shows of it.

OHIF is files that a browser runs. They are served on a loopback port, and so is the DICOMweb
server, for a browser asks no other than the one it got them from.
"""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import requests

from tests.conftest import ROOT
from tests.peers import LOOPBACK

_FILES = ROOT / ".tools" / "ohif" / "package" / "dist"
_MODULES = ROOT / ".tools" / "node" / "node_modules"
_WITHIN_S = 400
_DICOMWEB = "/dicom-web"
_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "dicomweb",
    "configuration": {
        "friendlyName": "where it was routed to",
        "name": "dicomweb",
        **dict.fromkeys(("qidoRoot", "wadoRoot", "wadoUriRoot"), _DICOMWEB),
        **dict.fromkeys(("imageRendering", "thumbnailRendering"), "wadors"),
        "enableStudyLazyLoad": True,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": False},
    },
}
_CONFIGURATION = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "investigationalUseDialog": {"option": "never"},
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "maxNumberOfWebWorkers": 1,
    "defaultDataSourceName": "dicomweb",
    "dataSources": [_SOURCE],
}


def is_installed() -> bool:
    """Whether OHIF, a browser, and what steers it are there."""
    return (
        (_FILES / "index.html").is_file()
        and (_MODULES / "playwright-core").is_dir()
        and None not in (shutil.which("chromium"), shutil.which("node"))
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person would see."""

    list: str  # the text of the list of Studies
    viewer: str  # the text around and over the picture
    greys: int  # how many different ones are in the picture


def look_at(dicomweb_url: str, study_instance_uid: str, name: str) -> Seen:
    """Look for a name, as it is shown, in the list of Studies of this DICOMweb server, and then at
    the Study.
    """
    with _serving(dicomweb_url) as url:
        done = subprocess.run(
            [
                "node",
                str(ROOT / "tests" / "node" / "view.js"),
                shutil.which("chromium") or "",
                url,
                study_instance_uid,
                name,
            ],
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
            env={**os.environ, "NODE_PATH": str(_MODULES)},
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return Seen(**json.loads(done.stdout))


@contextmanager
def _serving(dicomweb_url: str) -> Iterator[str]:
    server = ThreadingHTTPServer((LOOPBACK, 0), _handler(dicomweb_url))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(dicomweb_url: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(_DICOMWEB):
                self._pass_on()
            elif path == "/app-config.js":
                text = f"window.config = {json.dumps(_CONFIGURATION)};"
                self._answer(200, "text/javascript", text.encode())
            else:
                file = _FILES / path.lstrip("/")
                # Every page is the one page.
                file = file if file.is_file() else _FILES / "index.html"
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                self._answer(200, kind, file.read_bytes())

        def _pass_on(self) -> None:
            headers = {"Accept": self.headers.get("Accept", "*/*"), "Host": self.headers["Host"]}
            url = dicomweb_url + self.path.removeprefix(_DICOMWEB)
            answer = requests.get(url, headers=headers, timeout=60)
            kind = answer.headers.get("Content-Type", "application/octet-stream")
            self._answer(answer.status_code, kind, answer.content)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *words: object) -> None:
            """Say nothing: pytest shows what a browser says when it fails."""

    return Handler
