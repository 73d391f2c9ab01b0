"""GET of a ruleset over 16 connections, against the same document from Flask alone in the same
server, on an idle system and while Instances flow.
"""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.local.addresses import read_addresses
from infra.local.benches import median_ratio
from infra.local.benching import programs
from infra.local.benching.http_load import Load, load
from infra.local.benching.instances import synthetic_ct
from infra.local.benching.programs import BenchError
from infra.local.benching.raw_sender import send

_MAX_ROUNDS = 3
_CONNECTIONS, _SECONDS = 16, 4
_PATH = "/api/v1/config/rulesets/bench"
_KEY = "bench-key"
_FLOWING = 20

_RULESET: dict[str, Any] = {
    "name": "bench",
    "execution_mode": "FIRST_MATCH",
    "rules": [
        {
            "name": f"rule-{number}",
            "conditions": [{"type": "tag_equals", "tag": "StationName", "value": f"CT{number}"}],
            "actions": [{"type": "set", "tag": "SeriesDescription", "value": f"FROM CT{number}"}],
            "destinations": ["folder"],
        }
        for number in range(20)
    ],
}
_CONFIGURATION: dict[str, Any] = {
    "destinations": [{"name": "folder", "type": "filesystem", "path": "folder"}],
    "settings": {"default_route": ["folder"]},
    "rulesets": [_RULESET],
}


def run(rounds: int) -> dict[str, Any]:
    """Requests a second and 95th percentiles (medians), and ratios to Flask alone."""
    rounds = min(rounds, _MAX_ROUNDS)
    values: dict[str, Any] = {"rounds": rounds}
    if programs.find("wrk") is None:
        return values
    loads: dict[str, list[Load]] = {"ours": [], "bare": [], "ours_flowing": []}
    with programs.work_folder(on_disk=True) as folder:
        document = folder / "ruleset.json"
        document.write_text(json.dumps(_RULESET), encoding="utf-8")
        files = synthetic_ct(folder / "ct", _FLOWING)
        home = folder / "home"
        with (
            programs.whole_system(home, _CONFIGURATION, AXIOM_API_KEY=_KEY) as system,
            programs.python_module(
                "infra.local.benching.bare_flask", folder, str(document)
            ) as bare,
        ):
            addresses = read_addresses(home)
            if addresses is None:
                raise BenchError("the system told no address")
            ports = {"ours": addresses.http_port, "bare": bare.port}
            for port in ports.values():
                _load(port)  # what is imported on first use is not what is measured
            for _ in range(rounds):
                for name, port in ports.items():
                    loads[name].append(_load(port))
                with _flowing(system.port, files):
                    loads["ours_flowing"].append(_load(addresses.http_port))
    for name, found in loads.items():
        values[f"{name}_per_s"] = statistics.median(one.per_s for one in found)
        values[f"{name}_p95_ms"] = statistics.median(one.p95_ms for one in found)
    values["per_s_vs_bare"] = median_ratio(
        [one.per_s for one in loads["ours"]], [one.per_s for one in loads["bare"]]
    )
    return values


def _load(port: int) -> Load:
    return load(port, _PATH, _KEY, connections=_CONNECTIONS, seconds=_SECONDS)


@contextmanager
def _flowing(port: int, files: Sequence[Path]) -> Iterator[None]:
    """Instances come over and over meanwhile."""
    is_over = threading.Event()

    def flow() -> None:
        while not is_over.is_set():
            send(port, files)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
