"""Measure delivery by C-STORE, five tags changed on the way, against dcmtk and pynetdicom.

Ours is what `deliver_instance` does with an Instance: open the received file, apply the Changes to
its header, and send it over a kept association. dcmtk's storescu sends the files unedited, and its
clock includes its start; pynetdicom sends files in pieces, unedited too. Each sends from a process
of its own to a storescp that drops what it gets.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.local.benches import median_ratio
from infra.local.benching import programs
from infra.local.benching.instances import synthetic_ct, synthetic_multi_frame
from infra.local.benching.programs import BenchError
from infra.local.benching.senders import OURS, PYNETDICOM

_MAX_ROUNDS = 3
_INSTANCES = 200
_SHIPPED_INSTANCES = 40  # storescu sends 20 in a second then
_LARGE_MIB = 1024

Send = Callable[[int, Sequence[Path]], float]


def run(rounds: int) -> dict[str, Any]:
    """Instances in a second by sender (medians), and our ratios to the peers."""
    rounds = min(rounds, _MAX_ROUNDS)
    values: dict[str, Any] = {"rounds": rounds}
    if programs.find("storescp") is None or programs.find("storescu") is None:
        return values
    growth: list[float] = []

    def ours(port: int, files: Sequence[Path]) -> float:
        sent = _in_process(OURS, port, files)
        growth.append(sent["growth_mib"])
        return sent["seconds"]

    def pynetdicom(port: int, files: Sequence[Path]) -> float:
        return _in_process(PYNETDICOM, port, files)["seconds"]

    with programs.work_folder(on_disk=False) as folder:
        files = synthetic_ct(folder / "ct", _INSTANCES)
        best = {"ours": ours, "storescu": _storescu, "pynetdicom": pynetdicom}
        values |= _compared("edited", best, files, rounds)
        shipped = {"ours": ours, "storescu": _storescu_as_shipped}
        values |= _compared("as_shipped", shipped, files[:_SHIPPED_INSTANCES], rounds, True)
        large = [synthetic_multi_frame(folder / "large.dcm", _LARGE_MIB)]
        growth.clear()
        values |= _compared("gb", {"ours": ours, "storescu": _storescu}, large, rounds)
        values["gb_growth_mib"] = max(growth)
    return values


def _compared(
    what: str,
    senders: Mapping[str, Send],
    files: Sequence[Path],
    rounds: int,
    as_shipped: bool = False,
) -> dict[str, float]:
    """Senders take turns; another one is the first in each round."""
    rates: dict[str, list[float]] = {name: [] for name in senders}
    for number in range(rounds):
        names = list(senders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with (
                programs.work_folder(on_disk=False) as folder,
                programs.storescp(folder / "scp", as_shipped=as_shipped, ignores=True) as scp,
            ):
                rates[name].append(len(files) / senders[name](scp.port, files))
    values = {f"{what}_{name}_per_s": statistics.median(each) for name, each in rates.items()}
    for name, each in rates.items():
        if name != "ours":
            values[f"{what}_vs_{name}"] = median_ratio(rates["ours"], each)
    return values


def _in_process(sender: str, port: int, files: Sequence[Path]) -> dict[str, float]:
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "infra.local.benching.senders", sender, str(port)],
        input="\n".join(map(str, files)),
        env={**os.environ, "PYTHONPATH": str(programs.ROOT)},
        cwd=programs.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise BenchError(f"the sender {sender} failed")
    result: dict[str, float] = json.loads(ran.stdout)
    return result


def _storescu(port: int, files: Sequence[Path], *, no_delay: bool = True) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    if no_delay:
        environment["TCP_NODELAY"] = "1"
    size = ["-pdu", "131072"] if no_delay else []
    began_s = time.perf_counter()
    subprocess.run(  # noqa: S603
        ["storescu", *size, "-aec", "ANY", "127.0.0.1", str(port), *map(str, files)],  # noqa: S607
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began_s


def _storescu_as_shipped(port: int, files: Sequence[Path]) -> float:
    return _storescu(port, files, no_delay=False)
