"""Programs under measurement: started on free loopback ports, accounted for, ended by their id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local import heartbeat
from infra.local.part import PART_NAMES

ROOT = Path(__file__).resolve().parents[3]
LOOPBACK = "127.0.0.1"

_READY_WITHIN_S = 60.0
# A part is alive a little before it works.
_SETTLED_AFTER_S = 2.0
# Of dcmtk, and of who develops Python programs: neither is how a system is installed.
_NOT_HANDED_ON = {"TCP_NODELAY", "PYTHONDONTWRITEBYTECODE"}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PACKAGES = {
    "storescp": "dcmtk",
    "storescu": "dcmtk",
    "movescu": "dcmtk",
    "Orthanc": "orthanc",
    "curl": "curl",
    "wrk": "wrk",
}


class BenchError(Exception):
    """A bench cannot go on; the text says why."""


def find(program: str) -> str | None:
    """The path of a peer, installed from Debian if this may be; None, and says so, where not."""
    found = shutil.which(program)
    package = _PACKAGES[program]
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"axiom: installing {package}", file=sys.stderr, flush=True)
        subprocess.run(  # noqa: S603 (the package is one of ours above)
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", package],  # noqa: S607
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        found = shutil.which(program)
    if found is None:
        print(f"axiom: {program} is not there (Debian: {package}): left out", file=sys.stderr)
    return found


@contextmanager
def work_folder(*, on_disk: bool) -> Iterator[Path]:
    """A folder for what is measured: on disk, or in memory where a sync costs nothing."""
    memory = Path("/dev/shm")  # noqa: S108
    parent = Path("/var/tmp") if on_disk or not memory.is_dir() else memory  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="axiom-bench-", dir=parent) as folder:
        yield Path(folder)


@dataclass(frozen=True, slots=True)
class Program:
    """A running program and the port that it listens on."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def cpu_s(self) -> float:
        """User and system time of it and its children, those that have ended included."""
        ticks = 0
        for pid in _family(self.process.pid):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        return ticks / _TICKS_PER_S

    @property
    def peak_mib(self) -> float:
        """The high-water mark of memory, summed over it and its children."""
        return sum(peak_mib(pid) for pid in _family(self.process.pid))

    @property
    def memory_mib(self) -> float:
        """Memory of it and its children now; what several of them share counts once."""
        return sum(_shared_out_mib(pid) for pid in _family(self.process.pid))

    @property
    def pids(self) -> list[int]:
        return _family(self.process.pid)


def peak_mib(pid: int) -> float:
    """The high-water mark of one process's own memory (VmHWM less what is mapped from files)."""
    return _status_kib(pid, "VmHWM") / 1024


@contextmanager
def running(
    command: Sequence[str | Path],
    port: int,
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run a program until the block ends; begins once it listens on `port`."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AXIOM_") and name not in _NOT_HANDED_ON
    }
    log_path = folder.with_name(f"{folder.name}.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            list(map(str, command)),
            cwd=folder,
            env={**variables, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _await_port(port, process, log_path)
            yield Program(process, port)
        finally:
            _end(process)


@contextmanager
def storescp(
    folder: Path, *, as_shipped: bool = False, forks: bool = False, ignores: bool = False
) -> Iterator[Program]:
    """dcmtk's storescp, at its best unless `as_shipped`; `ignores` has it drop what comes."""
    port = free_port()
    command = ["storescp", "-q", "-aet", "ANY", "-od", str(folder), "+xa", "+B"]
    if not as_shipped:
        command += ["-pdu", "131072"]
    command += (["--fork"] if forks else []) + (["--ignore"] if ignores else [])
    environment = {} if as_shipped else {"TCP_NODELAY": "1"}
    with running([*command, str(port)], port, folder=folder, environment=environment) as program:
        yield program


@contextmanager
def orthanc(folder: Path, **settings: Any) -> Iterator[Program]:
    """Orthanc, tuned for speed: large PDUs, no MD5, no sync, no compression, no Nagle."""
    port = free_port()
    document = {
        "Name": "BENCH",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": "ANY",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "HttpServerEnabled": False,
        "Plugins": [],
        "MaximumPduLength": 131072,
        "StoreMD5ForAttachments": False,
        "SyncStorageArea": False,
        "DicomThreadsCount": 4,
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.json")
    path.write_text(json.dumps(document))
    with running(
        ["Orthanc", path], port, folder=folder, environment={"TCP_NODELAY": "1"}
    ) as program:
        yield program


@contextmanager
def python_module(module: str, folder: Path, *arguments: str) -> Iterator[Program]:
    """A module of ours as a program; its first argument is the port to listen on."""
    port = free_port()
    command = [sys.executable, "-m", module, str(port), *arguments]
    with running(command, port, folder=folder) as program:
        yield program


def pynetdicom_scp(folder: Path) -> AbstractContextManager[Program]:
    """A minimal handler over pynetdicom, with all Presentation Contexts."""
    return python_module("infra.local.benching.pynetdicom_scp", folder, str(folder))


@contextmanager
def gateway(folder: Path) -> Iterator[Program]:
    """Our gateway alone, over a home of its own; nobody works on its queue."""
    port = free_port()
    environment = {
        "AXIOM_HOME": str(folder),
        "AXIOM_DIMSE_PORT": str(port),
        "AXIOM_AE_TITLE": "ANY",
    }
    command = [sys.executable, "-m", "scp_gateway.main"]
    with running(command, port, folder=folder, environment=environment) as program:
        yield program


@contextmanager
def whole_system(home: Path, document: Mapping[str, Any], **settings: str) -> Iterator[Program]:
    """All of Axiom Flow as `axiom up` starts it, with this configuration; its port is DIMSE's.

    `settings` are more of its environment.
    """
    port = free_port()
    environment = {
        "AXIOM_HOME": str(home),
        "AXIOM_DIMSE_PORT": str(port),
        "AXIOM_HTTP_PORT": "0",
        "AXIOM_AE_TITLE": "ANY",
        **settings,
    }
    home.mkdir(parents=True)
    path = home.with_name(f"{home.name}-configuration.json")
    path.write_text(json.dumps(document))
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "infra.local.benching.configure", str(path)],
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    command = [sys.executable, str(ROOT / "axiom"), "up"]
    with running(command, port, folder=home, environment=environment) as program:
        # The listener is there before the stages are.
        _await_parts(program, home)
        yield program


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + _READY_WITHIN_S
    # Asked of the kernel: storescp would take a connection for an association.
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise BenchError(f"{process.args!r}: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.02)


def _await_parts(program: Program, home: Path) -> None:
    deadline_s = time.monotonic() + _READY_WITHIN_S
    while any(heartbeat.read(home / "run", name) is None for name in PART_NAMES):
        if program.process.poll() is not None or time.monotonic() > deadline_s:
            raise BenchError("the system did not start")
        time.sleep(0.05)
    time.sleep(_SETTLED_AFTER_S)


def _listens(port: int) -> bool:
    lines = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            lines += Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    listening = "0A"
    return any(
        fields[1].endswith(f":{port:04X}") and fields[3] == listening
        for fields in map(str.split, lines)
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _family(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += _family(int(child))
    return found


def _shared_out_mib(pid: int) -> float:
    """What is a process's own, and its share of what it shares (Pss)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _status_kib(pid: int, field: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0
