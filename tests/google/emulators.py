"""Google's own emulators of Firestore and Pub/Sub, each a child process on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.peers import free_port
from tests.running import NotInTimeError, wait_until

_COMMANDS = {
    "firestore": ["gcloud", "emulators", "firestore", "start"],
    "pubsub": ["gcloud", "beta", "emulators", "pubsub", "start"],
}


@contextmanager
def emulator(name: str, folder: Path) -> Iterator[str]:
    """`host:port` of the running emulator. Skips the test where there is none to run."""
    if not (shutil.which("gcloud") and shutil.which("java")):
        pytest.skip("Google's emulators are not installed")
    address = f"127.0.0.1:{free_port()}"
    log_file = folder / f"{name}.log"
    with log_file.open("wb") as log:
        # gcloud is a wrapper around a Java child: a session of its own lets both be ended.
        process = subprocess.Popen(
            [*_COMMANDS[name], f"--host-port={address}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            start_new_session=True,
        )
    try:
        try:
            wait_until(lambda: _listens(address), 90.0, f"the {name} emulator")
        except NotInTimeError:
            raise NotInTimeError(log_file.read_text(errors="replace")[-2000:]) from None
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True
