"""Those who send: dcmtk's storescu, our own sender, and STOW-RS; each keeps account of answers."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import requests

from infra.local.sending import SENT, examine, send
from infra.local.torture.instances import Instance
from infra.local.torture.ledger import Ledger
from infra.local.torture.system import AE_TITLE, System
from shared.adapters.destinations.association import Peer

# Answers what of a batch was acknowledged, by SOP Instance UID.
Send = Callable[[System, Sequence[Instance]], Collection[str]]

_DCMTK_TIMEOUT_S = 60.0
_REST_S = 0.3
_SENDING = re.compile(r"^I: Sending file: (.+)$")
_SUCCESS = re.compile(r"^I: Received Store Response \(Success\)")


def by_dcmtk(system: System, batch: Sequence[Instance]) -> Collection[str]:
    """One association of storescu, whose log says what each file was answered."""
    command = [
        "storescu", "-v", "-nh", "-to", "10", "-ta", "20", "-td", "20",
        "-aet", "DCMTK", "-aec", AE_TITLE, system.host, str(system.dimse_port),
        *(str(instance.path) for instance in batch),
    ]  # fmt: skip
    try:
        told = subprocess.run(  # noqa: S603 (files of our own making)
            command, capture_output=True, text=True, timeout=_DCMTK_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return []
    acknowledged, name = [], ""
    for line in (told.stdout + told.stderr).splitlines():
        if sending := _SENDING.match(line):
            name = Path(sending[1]).stem
        elif _SUCCESS.match(line) and name:
            acknowledged.append(name)
            name = ""
    return acknowledged


def by_association(system: System, batch: Sequence[Instance]) -> Collection[str]:
    """One association of `axiom send`."""
    peer = Peer(system.host, system.dimse_port, AE_TITLE, "TORTURE", 65536, 20.0)
    results = send([examine(instance.path) for instance in batch], peer)
    return [result.sop_instance_uid for result in results if result.outcome == SENT]


def by_stow(system: System, batch: Sequence[Instance]) -> Collection[str]:
    """One STOW-RS request; what the Referenced SOP Sequence of its answer names."""
    files = [instance.path.read_bytes() for instance in batch]
    if len(files) == 1:
        body, kind = files[0], "application/dicom"
    else:
        part = b"\r\n--torture\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + file for file in files) + b"\r\n--torture--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=torture'
    try:
        answer = requests.post(
            f"{system.url}/api/v1/dicomweb/studies",
            data=body,
            headers={**system.headers, "Content-Type": kind},
            timeout=20,
        )
        if answer.status_code not in (200, 202):
            return []
        items = answer.json().get("00081199", {}).get("Value", [])
        return [item["00081155"]["Value"][0] for item in items]
    except (requests.RequestException, ValueError, KeyError):
        return []


def senders_here() -> dict[str, tuple[Send, int]]:
    """The ways to send that this machine has, by name, each with its largest batch."""
    ways: dict[str, tuple[Send, int]] = {"C-STORE": (by_association, 12), "STOW-RS": (by_stow, 6)}
    if shutil.which("storescu"):
        ways["storescu"] = (by_dcmtk, 30)
    return ways


class Sender:
    """Sends new Instances, and again what was not acknowledged, until told to stop."""

    def __init__(
        self,
        system: System,
        ledger: Ledger,
        way: tuple[Send, int],
        make: Callable[[], Instance],
        correct: Callable[[Instance], Instance],
        may_send: Callable[[], bool],
        random_: random.Random,
    ) -> None:
        self._system, self._ledger = system, ledger
        self._send, self._largest_batch = way
        self._make, self._correct = make, correct
        self._may_send, self._random = may_send, random_
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask to end with the batch at hand."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _run(self) -> None:
        again: list[Instance] = []
        while not self._stopped.is_set():
            if not self._may_send():
                self._stopped.wait(_REST_S)
                continue
            # Never two of one SOP Instance UID: the second is made once the first is acknowledged.
            batch = again[: self._largest_batch]
            wanted = self._random.randint(1, self._largest_batch)
            while len(batch) < wanted:
                batch.append(self._make())
            told = set(self._send(self._system, batch))
            acknowledged = [i for i in batch if i.sop_instance_uid in told]
            self._ledger.acknowledge(acknowledged)
            refused = [i for i in batch if i.sop_instance_uid not in told]
            corrected = [
                self._correct(i) for i in acknowledged if i.kind.comes_twice and i.version == 1
            ]
            again = refused + corrected + again[self._largest_batch :]
            if refused:
                self._stopped.wait(_REST_S)
