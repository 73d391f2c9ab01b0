"""Senders of a rehearsal, which send again what was not acknowledged, as modalities do."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.rehearse.services import LOOPBACK
from infra.local.rehearse.system import System

_SUCCESS = re.compile(r"Sending file: (\S+)(?:(?!Sending file).)*?Response \(Success\)", re.DOTALL)
_GIVES_UP_AFTER_S = 240.0
_TRIES_AGAIN_AFTER_S = 0.5
_STOW = 'multipart/related; type="application/dicom"; boundary=B'


@dataclass(slots=True)
class Sent:
    """Instances by their SOP Instance UIDs: all, and those that a sender was told Success for."""

    files: dict[str, bytes] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)


class DimseSender(threading.Thread):
    """dcmtk's storescu, as often as it takes to have all acknowledged."""

    def __init__(self, system: System, folder: Path, files: Mapping[str, bytes]) -> None:
        super().__init__(name="storescu", daemon=True)
        self.sent = Sent(dict(files))
        self._system, self._folder = system, folder
        folder.mkdir(parents=True)
        for uid, data in files.items():
            (folder / f"{uid}.dcm").write_bytes(data)

    def run(self) -> None:
        """Send; a file that is acknowledged is deleted."""
        until_s = time.monotonic() + _GIVES_UP_AFTER_S
        while any(self._folder.iterdir()) and time.monotonic() < until_s:
            for path in _stored(self._folder, self._system):
                self.sent.acknowledged.add(path.stem)
                path.unlink()
            time.sleep(_TRIES_AGAIN_AFTER_S)


def _stored(folder: Path, system: System) -> list[Path]:
    """Send all that is in the folder over one association; the files that were acknowledged."""
    title = system.shape.gateway["AXIOM_AE_TITLE"]
    peer = [LOOPBACK, str(system.gateway.port)]
    done = subprocess.run(  # noqa: S603 (the words are ours)
        ["storescu", "-v", "-aec", title, "-to", "30", "+sd", *peer, str(folder)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return acknowledged(done.stdout + done.stderr)


def acknowledged(said: str) -> list[Path]:
    """The files of which storescu says that their Status was Success."""
    return [Path(name) for name in _SUCCESS.findall(said)]


def stow(system: System, files: Mapping[str, bytes]) -> Sent:
    """STOW-RS of all in one request."""
    parts = (
        b"--B\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n"
        for data in files.values()
    )
    answer = system.request(
        "POST",
        "/api/v1/dicomweb/studies",
        data=b"".join(parts) + b"--B--\r\n",
        headers={"Content-Type": _STOW, "Accept": "application/dicom+json"},
    )
    return Sent(dict(files), set(files) if answer.status_code == 200 else set())
