"""Google's own emulators of Firestore and Pub/Sub, each a child process on a loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.local.addresses import claim_port

_COMMANDS = {
    "firestore": ["gcloud", "emulators", "firestore", "start"],
    "pubsub": ["gcloud", "beta", "emulators", "pubsub", "start"],
}
_READY_WITHIN_S = 90.0
_LOOPBACK = "127.0.0.1"


class EmulatorNotReadyError(Exception):
    """An emulator did not listen in time; the text is the end of its log."""


def are_installed() -> bool:
    """Whether gcloud and its Java are there."""
    return bool(shutil.which("gcloud") and shutil.which("java"))


@contextmanager
def emulator(name: str, folder: Path) -> Iterator[str]:
    """`host:port` of the running emulator. Raises: EmulatorNotReadyError."""
    port = claim_port(0, _LOOPBACK, name)
    log_file = folder / f"{name}.log"
    with log_file.open("wb") as log:
        # gcloud is a wrapper around a Java child: a session of its own lets both be ended.
        process = subprocess.Popen(  # noqa: S603 (the words are ours)
            [*_COMMANDS[name], f"--host-port={_LOOPBACK}:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            start_new_session=True,
        )
    try:
        if not listens_within(port, _READY_WITHIN_S):
            raise EmulatorNotReadyError(log_file.read_text(errors="replace")[-2000:])
        yield f"{_LOOPBACK}:{port}"
    finally:
        end_group(process)


def listens_within(port: int, within_s: float) -> bool:
    """Whether somebody listens on the loopback port in time."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        with suppress(OSError), socket.create_connection((_LOOPBACK, port), 1):
            return True
        time.sleep(0.1)
    return False


def end_group(process: subprocess.Popen[bytes], within_s: float = 15.0) -> float:
    """End a process that leads its group, as Cloud Run does; how long that took."""
    began_s = time.monotonic()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return time.monotonic() - began_s
