"""Measure pulling a Study of 1,000 CT from Orthanc: over WADO-RS against curl, and over C-MOVE
against movescu with storescp.

All take turns in each round. The plain tools sync nothing; neither does our home, which lies in
memory. The rest is as in production: the whole system runs, and what comes is found by a query,
checked, kept and decided about. It counts as pulled once it lies under its final name.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from infra.local import heartbeat
from infra.local.benches import median_ratio
from infra.local.benching import programs
from infra.local.benching.instances import synthetic_ct
from infra.local.benching.programs import BenchError
from shared import bootstrap
from shared.environment import Environment
from shared.pipeline.source_states import request_poll

_INSTANCES = 1000
_MAX_ROUNDS = 2
_WITHIN_S = 600.0
_POLL_S = 0.02
_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/lib/orthanc/plugins/libOrthancDicomWeb.so"),
)
_WADO, _MOVE = "wado", "move"


def run(rounds: int) -> dict[str, Any]:
    """Instances in a second over either way (medians), ours by the plain tools', and memory."""
    rounds = min(rounds, _MAX_ROUNDS)
    values: dict[str, Any] = {"rounds": rounds, "instances": _INSTANCES}
    plugins = [str(path) for path in _PLUGINS if path.exists()]
    if not all(map(programs.find, ("Orthanc", "movescu", "storescp", "curl"))) or not plugins:
        return values
    rates: dict[str, list[float]] = {
        name: [] for name in ("curl", "ours_wado", "movescu", "ours_move")
    }
    growth: list[float] = []
    with (
        programs.work_folder(on_disk=False) as folder,
        _archive(folder / "orthanc", plugins) as archive,
    ):
        study = archive.fill(folder / "ct")
        for number in range(rounds):
            rates["curl"].append(archive.by_curl(folder / "out", study))
            rates["ours_wado"].append(_ours(folder / f"wado{number}", archive, _WADO, growth))
            rates["movescu"].append(archive.by_movescu(folder / f"sink{number}", study))
            rates["ours_move"].append(_ours(folder / f"move{number}", archive, _MOVE, growth))
    values |= {f"{name}_per_s": statistics.median(each) for name, each in rates.items()}
    values["wado_vs_curl"] = median_ratio(rates["ours_wado"], rates["curl"])
    values["move_vs_movescu"] = median_ratio(rates["ours_move"], rates["movescu"])
    values["growth_mib"] = max(growth)
    return values


class _Archive:
    """Orthanc, tuned for speed, with DICOMweb."""

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.dicom_port = dicom_port
        self.url = f"http://{programs.LOOPBACK}:{http_port}"

    def fill(self, folder: Path) -> str:
        """Store the Instances, all of one Study; its UID."""
        for path in synthetic_ct(folder, _INSTANCES):
            stored = requests.post(f"{self.url}/instances", data=path.read_bytes(), timeout=60)
            stored.raise_for_status()
            path.unlink()
        [found] = requests.get(f"{self.url}/dicom-web/studies", timeout=60).json()
        uid: str = found["0020000D"]["Value"][0]
        return uid

    def knows(self, ae_title: str, port: int) -> None:
        """Have it know where to send to."""
        modality = {"AET": ae_title, "Host": programs.LOOPBACK, "Port": port}
        requests.put(
            f"{self.url}/modalities/{ae_title.lower()}", json=modality, timeout=60
        ).raise_for_status()

    def by_curl(self, out: Path, study: str) -> float:
        """The Study as one multipart, to a file."""
        accept = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*'
        began_s = time.perf_counter()
        subprocess.run(  # noqa: S603
            ["curl", "-sf", "-H", accept, "-o", out, f"{self.url}/dicom-web/studies/{study}"],  # noqa: S607
            check=True,
        )
        rate = _INSTANCES / (time.perf_counter() - began_s)
        out.unlink()
        return rate

    def by_movescu(self, folder: Path, study: str) -> float:
        """Moved to storescp, which keeps the files."""
        with programs.storescp(folder) as sink:
            self.knows("SINK", sink.port)
            keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}")
            command = ["movescu", "-S", "-aec", "ANY", "-aem", "SINK", "-aet", "BENCH"]
            began_s = time.perf_counter()
            subprocess.run(  # noqa: S603
                [*command, "-k", keys[0], "-k", keys[1], programs.LOOPBACK, str(self.dicom_port)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            rate = _INSTANCES / (time.perf_counter() - began_s)
            count = len(list(folder.iterdir()))
        if count < _INSTANCES:
            raise BenchError(f"movescu moved {count} Instances")
        _remove(folder)
        return rate


@contextmanager
def _archive(folder: Path, plugins: list[str]) -> Iterator[_Archive]:
    http_port = programs.free_port()
    settings: Mapping[str, Any] = {
        "HttpServerEnabled": True,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "Plugins": plugins,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomScuMaximumPduLength": 131072,
        "SynchronousCMove": True,
    }
    with programs.orthanc(folder, **settings) as program:
        archive = _Archive(program.port, http_port)
        deadline_s = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{archive.url}/system", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if time.monotonic() > deadline_s:
                    raise BenchError("Orthanc does not answer") from None
                time.sleep(0.1)
        yield archive


def _ours(home: Path, archive: _Archive, way: str, growth: list[float]) -> float:
    shared = {
        "name": "archive",
        "lookback": "30000d",
        # Polled when the clock is started, and not before.
        "schedule": {"dates_on": ["2099-01-01"], "timezone": "UTC"},
    }
    source = (
        {"type": "dicomweb", "base_url": f"{archive.url}/dicom-web", **shared}
        if way == _WADO
        else {
            "type": "dimse_qr",
            "host": programs.LOOPBACK,
            "port": archive.dicom_port,
            "ae_title": "ANY",
            "move_destination": "AXIOM",
            **shared,
        }
    )
    document = {"sources": [source], "settings": {"default_route": []}}
    with programs.whole_system(home, document) as system:
        archive.knows("AXIOM", system.port)
        beat = heartbeat.read(home / "run", "polling")
        if beat is None:
            raise BenchError("nobody polls")
        before_mib = 0.0
        ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(home)}))
        began_s = time.perf_counter()
        request_poll("archive", ports)
        deadline_s = time.monotonic() + _WITHIN_S
        first_s = 0.0
        while (count := _received(home)) < _INSTANCES:
            # The request is seen within a second or so, which says nothing of speed.
            if count and not first_s:
                first_s = time.perf_counter()
                before_mib = programs.peak_mib(beat.pid)
            if time.monotonic() > deadline_s:
                raise BenchError(f"{count} of {_INSTANCES} Instances came")
            time.sleep(_POLL_S)
        ended_s = time.perf_counter()
        growth.append(programs.peak_mib(beat.pid) - before_mib)
    _remove(home)
    return _INSTANCES / (ended_s - (first_s or began_s))


def _received(home: Path) -> int:
    return sum(1 for _ in (home / "objects" / "received").rglob("*.dcm"))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)
