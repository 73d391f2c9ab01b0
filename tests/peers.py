"""Real peers to deliver to and to send from: dcmtk's storescp and Orthanc, on free loopback ports.

A test module that says `pytest_plugins = ("tests.peers",)` can ask for the fixtures `storescp` (a
factory, one peer per call) and `orthanc` (one for the whole session, with DICOMweb). Where the
program is not installed the test is skipped and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from infra.local.addresses import claim_port

LOOPBACK = "127.0.0.1"
_START_ATTEMPTS = 5
_READY_WITHIN_S = 120.0
_ORTHANC_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/lib/orthanc/plugins/libOrthancDicomWeb.so"),
)


class PeerNotReadyError(Exception):
    """A peer ended, or did not listen in time; the text is the end of its log."""


def free_port() -> int:
    """A loopback port that nothing listens on now; somebody else may take it before you do.

    None of those that the system gives to outgoing connections: whoever tries until somebody
    listens on one of these may, by chance, connect to itself.
    """
    return claim_port(0, LOOPBACK, "TEST")


class _Peer:
    """A child process that listens, with a process group of its own; never stopped by name."""

    program: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder.with_name(folder.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def is_installed(cls) -> bool:
        return shutil.which(cls.program) is not None

    def start(self) -> Self:
        """Start on fresh ports and return once it listens.

        Raises: PeerNotReadyError.
        """
        for attempt in range(1, _START_ATTEMPTS + 1):
            command, environment = self._command()
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=self.folder,
                    start_new_session=True,
                )
            try:
                self._wait_until_ready()
            except PeerNotReadyError:
                # Most often another process took the free port first.
                self.stop()
                if attempt == _START_ATTEMPTS:
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """End it and whatever it forked; twice is once."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """End it and whatever it forked, at once: Orthanc takes its time to close connections."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """All that the program has printed."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PeerNotReadyError(f"{self.program}: {self.log()[-2000:]}")
            time.sleep(0.02)


class StorescpPeer(_Peer):
    """dcmtk's storescp, which stores what comes, bit for bit (+B), in `folder`.

    It takes every Transfer Syntax and unknown SOP Classes. As Debian ships it, Nagle's algorithm is
    on and one association is served at a time; `no_delay` and `fork` change that.
    """

    program = "storescp"

    def __init__(
        self,
        folder: Path,
        *options: str,
        ae_title: str = "STORESCP",
        fork: bool = False,
        no_delay: bool = False,
        bit_preserving: bool = True,
    ) -> None:
        super().__init__(folder)
        self.host = LOOPBACK
        self.port = 0
        self.ae_title = ae_title
        self._options = [
            *options,
            *(["--fork"] if fork else []),
            *(["+B"] if bit_preserving else []),
        ]
        self._no_delay = no_delay

    def files(self) -> list[Path]:
        """The stored files, Part 10, in order of their names (`<modality>.<SOP Instance UID>`)."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    def file(self, sop_instance_uid: str) -> Path:
        """The stored file of this Instance, the newest if there are several (`<modality>` differs
        with the SOP Class). Raises: FileNotFoundError.
        """
        found = [p for p in self.files() if p.name.split(".", 1)[1] == sop_instance_uid]
        if not found:
            raise FileNotFoundError(sop_instance_uid)
        return max(found, key=lambda path: path.stat().st_mtime_ns)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        self.port = free_port()
        environment = dict(os.environ)
        environment.pop("TCP_NODELAY", None)
        if self._no_delay:
            environment["TCP_NODELAY"] = "1"  # dcmtk's own switch
        command = [self.program, "-aet", self.ae_title, "-od", str(self.folder), "-pm", "+xa"]
        return [*command, *self._options, str(self.port)], environment

    def _is_ready(self) -> bool:
        return _listens(self.port)


class OrthancPeer(_Peer):
    """Orthanc with its DICOMweb plugin; both ports are free ones, its storage lies in `folder`."""

    program = "Orthanc"

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        self.host = LOOPBACK
        self.port = 0
        self.http_port = 0
        self.ae_title = "ORTHANC"
        self._settings: Mapping[str, Any] = settings

    @classmethod
    def is_installed(cls) -> bool:
        return super().is_installed() and any(plugin.exists() for plugin in _ORTHANC_PLUGINS)

    @property
    def dicomweb_url(self) -> str:
        """Base URL of STOW-RS, QIDO-RS and WADO-RS, no slash at its end."""
        return f"http://{self.host}:{self.http_port}/dicom-web"

    @property
    def rest_url(self) -> str:
        """Base URL of Orthanc's own API, no slash at its end."""
        return f"http://{self.host}:{self.http_port}"

    def instance_ids(self) -> list[str]:
        """Orthanc's own ids of all that it stores."""
        ids: list[str] = requests.get(f"{self.rest_url}/instances", timeout=60).json()
        return ids

    def file(self, sop_instance_uid: str) -> bytes:
        """The stored Part 10 bytes of this Instance. Raises: FileNotFoundError."""
        found = requests.post(
            f"{self.rest_url}/tools/lookup", data=sop_instance_uid.encode(), timeout=60
        ).json()
        for entry in found:
            if entry["Type"] == "Instance":
                answer = requests.get(f"{self.rest_url}/instances/{entry['ID']}/file", timeout=60)
                answer.raise_for_status()
                return answer.content
        raise FileNotFoundError(sop_instance_uid)

    def clear(self) -> None:
        """Delete all that it stores."""
        for patient in requests.get(f"{self.rest_url}/patients", timeout=60).json():
            requests.delete(f"{self.rest_url}/patients/{patient}", timeout=60)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        self.port, self.http_port = free_port(), free_port()
        settings: dict[str, Any] = {
            "Name": "PEER",
            "StorageDirectory": str(self.folder),
            "IndexDirectory": str(self.folder),
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "UnknownSopClassAccepted": True,
            "HttpServerEnabled": True,
            "HttpPort": self.http_port,
            # Orthanc has no bind address; it turns away whoever does not come from this machine.
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "OverwriteInstances": False,
            "Plugins": [str(plugin) for plugin in _ORTHANC_PLUGINS if plugin.exists()],
            # Debian's /etc/orthanc is not read, so the root is set here.
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
            **self._settings,
        }
        path = self.folder.with_name(self.folder.name + ".json")
        path.write_text(json.dumps(settings))
        return [self.program, str(path)], dict(os.environ)

    def _is_ready(self) -> bool:
        credentials: Mapping[str, str] = self._settings.get("RegisteredUsers", {})
        auth = next(iter(credentials.items()), None)
        with suppress(requests.RequestException):
            answer = requests.get(f"{self.rest_url}/system", auth=auth, timeout=30)
            return answer.status_code == 200 and _listens(self.port)
        return False


StartStorescp = Callable[..., StorescpPeer]
StartOrthanc = Callable[..., OrthancPeer]


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StartStorescp]:
    """Start a storescp: `storescp()`, `storescp("-pdu", "4096", fork=True)`, several if wanted."""
    _skip_without(StorescpPeer)
    peers: list[StorescpPeer] = []

    def start(*options: str, **settings: Any) -> StorescpPeer:
        peers.append(StorescpPeer(tmp_path / f"storescp-{len(peers)}", *options, **settings))
        return peers[-1].start()

    yield start
    _kill(peers)


@pytest.fixture(scope="session")
def orthanc_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPeer]:
    """One Orthanc for all the tests of a session; `orthanc` hands it out empty."""
    _skip_without(OrthancPeer)
    with OrthancPeer(tmp_path_factory.mktemp("peer") / "orthanc") as peer:
        yield peer


@pytest.fixture
def orthanc(orthanc_session: OrthancPeer) -> OrthancPeer:
    """The session's Orthanc, empty."""
    orthanc_session.clear()
    return orthanc_session


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[StartOrthanc]:
    """Start an Orthanc with settings of its own: `start_orthanc(OverwriteInstances=True)`."""
    _skip_without(OrthancPeer)
    peers: list[OrthancPeer] = []

    def start(**settings: Any) -> OrthancPeer:
        peers.append(OrthancPeer(tmp_path / f"orthanc-{len(peers)}", **settings))
        return peers[-1].start()

    yield start
    _kill(peers)


def _skip_without(peer: type[_Peer]) -> None:
    if not peer.is_installed():
        pytest.skip(f"{peer.program} is not installed")


def _kill(peers: Sequence[_Peer]) -> None:
    for peer in peers:
        peer.kill()


def _listens(port: int) -> bool:
    """True if this machine listens on TCP `port`, asked of the kernel.

    A connection would tell as well, but a single-process storescp would wait for it to end.
    """
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()
        lines += Path("/proc/net/tcp6").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        with suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
            return True
        return False
    listening = "0A"
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == listening
        for line in lines
        if ":" in line.split()[0]
    )
