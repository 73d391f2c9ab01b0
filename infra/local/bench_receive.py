"""Measure reception against dcmtk's storescp, Orthanc and a minimal handler over pynetdicom.

Receivers take turns in each round, each in a fresh process. Without sync means a home in memory,
where a sync costs nothing; durable means one on disk with every sync. The rest is as in production:
the header is checked, the CRC kept and each Instance published before it is answered.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from infra.local.benches import median_ratio
from infra.local.benching import programs
from infra.local.benching.disk_floor import kept_per_s
from infra.local.benching.instances import synthetic_ct, synthetic_multi_frame
from infra.local.benching.programs import Program
from infra.local.benching.raw_sender import send
from shared.adapters.destinations import upper_layer
from shared.adapters.destinations.upper_layer import Context

_MAX_ROUNDS = 3
_INSTANCES = 200
_DURABLE_INSTANCES = 240
_SHIPPED_INSTANCES = 40  # at 20 in a second
_ASSOCIATIONS = 40
_IDLE_ASSOCIATIONS = 40
_IDLE_S = 3.0
_LARGE_MIB = 1024

Start = Callable[[Path], AbstractContextManager[Program]]
# Instances in a second, by receiver.
Rates = dict[str, list[float]]


def run(rounds: int) -> dict[str, Any]:
    """Instances in a second by receiver (medians), and our ratios to the peers."""
    rounds = min(rounds, _MAX_ROUNDS)
    values: dict[str, Any] = {"rounds": rounds}
    has_dcmtk, has_orthanc = bool(programs.find("storescp")), bool(programs.find("Orthanc"))
    with programs.work_folder(on_disk=False) as inputs:
        files = synthetic_ct(inputs / "ct", max(_INSTANCES, _DURABLE_INSTANCES))
        dcmtk: dict[str, Start] = {"storescp": programs.storescp} if has_dcmtk else {}
        orthanc: dict[str, Start] = {"orthanc": programs.orthanc} if has_orthanc else {}
        ours: dict[str, Start] = {"ours": programs.gateway}
        pynetdicom: dict[str, Start] = {"pynetdicom": programs.pynetdicom_scp}

        one = {**ours, **dcmtk, **pynetdicom}
        rates = _in_turns(one, lambda p: send(p.port, files[:_INSTANCES]).per_s, rounds)
        values |= _compared("one_association", rates)

        forking: dict[str, Start] = (
            {"storescp": lambda folder: programs.storescp(folder, forks=True)} if has_dcmtk else {}
        )
        rates = _in_turns(
            {**ours, **forking, **orthanc},
            lambda p: send(p.port, files[:_DURABLE_INSTANCES], associations=4).per_s,
            rounds,
            on_disk=True,
        )
        values |= _compared("durable_four_associations", rates)
        values |= _disk_floor(files[0].stat().st_size, rounds)

        each = {**ours, **pynetdicom, **orthanc}
        small = synthetic_ct(inputs / "small", _ASSOCIATIONS, rows=256, columns=128)
        rates = _in_turns(each, lambda p: send(p.port, small, association_each=True).per_s, rounds)
        values |= _compared("association_each", rates)

        if has_dcmtk:
            shipped: dict[str, Start] = {
                **ours,
                "storescp": lambda folder: programs.storescp(folder, as_shipped=True),
            }
            rates = _in_turns(
                shipped, lambda p: _storescu_per_s(p.port, files[:_SHIPPED_INSTANCES]), rounds
            )
            values |= _compared("as_shipped", rates)
    values["idle_percent_of_core"] = _idle_percent()
    values |= _large(has_dcmtk, rounds)
    return values


def _in_turns(
    receivers: dict[str, Start],
    measure: Callable[[Program], float],
    rounds: int,
    *,
    on_disk: bool = False,
) -> Rates:
    """What `measure` says of each receiver in each round; they take turns, the first changes."""
    rates: Rates = {name: [] for name in receivers}
    for number in range(rounds):
        names = list(receivers)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with (
                programs.work_folder(on_disk=on_disk) as folder,
                receivers[name](folder / name) as program,
            ):
                rates[name].append(measure(program))
    return rates


def _compared(what: str, rates: Rates) -> dict[str, float]:
    values = {f"{what}_{name}_per_s": statistics.median(each) for name, each in rates.items()}
    for name, each in rates.items():
        if name != "ours":
            values[f"{what}_vs_{name}"] = median_ratio(rates["ours"], each)
    return values


def _storescu_per_s(port: int, files: Sequence[Path]) -> float:
    """dcmtk's own sender as it is shipped, with Nagle's algorithm on."""
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    began_s = time.perf_counter()
    subprocess.run(  # noqa: S603
        ["storescu", "-aec", "ANY", "127.0.0.1", str(port), *map(str, files)],  # noqa: S607
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return len(files) / (time.perf_counter() - began_s)


def _disk_floor(size: int, rounds: int) -> dict[str, float]:
    """What the disk gives at most where the durable rates were taken; nothing if it cannot tell."""
    rates = []
    for _ in range(rounds):
        with programs.work_folder(on_disk=True) as folder, suppress(OSError):
            rates.append(kept_per_s(folder, size, count=_DURABLE_INSTANCES, at_once=4))
    return {"durable_disk_floor_per_s": statistics.median(rates)} if rates else {}


def _idle_percent() -> float:
    """What associations that do nothing cost, in percent of a core."""
    context = Context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    request = upper_layer.associate_request("ANY", "BENCH", [context], 16384)
    with (
        programs.work_folder(on_disk=False) as folder,
        programs.gateway(folder / "ours") as program,
        ExitStack() as open_connections,
    ):
        for _ in range(_IDLE_ASSOCIATIONS):
            connection = socket.create_connection(("127.0.0.1", program.port))
            open_connections.enter_context(connection)
            connection.sendall(request)
            if connection.recv(65536)[:1] != bytes([upper_layer.A_ASSOCIATE_AC]):
                raise programs.BenchError("an association was not accepted")
        before_s, began_s = program.cpu_s, time.monotonic()
        time.sleep(_IDLE_S)
        return 100 * (program.cpu_s - before_s) / (time.monotonic() - began_s)


def _large(has_dcmtk: bool, rounds: int) -> dict[str, float]:
    """1 GB, in PDUs as announced and as one PDU, and what memory grew by meanwhile."""
    values: dict[str, float] = {}
    with programs.work_folder(on_disk=False) as inputs:
        small = synthetic_ct(inputs / "ct", 3)
        large = [synthetic_multi_frame(inputs / "large.dcm", _LARGE_MIB)]
        growth: list[float] = []

        def in_pdus(program: Program) -> float:
            send(program.port, small)
            before_mib = program.peak_mib
            rate = send(program.port, large).per_s
            growth.append(program.peak_mib - before_mib)
            return rate * _LARGE_MIB

        def in_one_pdu(program: Program) -> float:
            send(program.port, small)
            before_mib = program.peak_mib
            rate = send(program.port, large, one_pdu=True).per_s
            growth.append(program.peak_mib - before_mib)
            return rate * _LARGE_MIB

        receivers: dict[str, Start] = {"ours": programs.gateway}
        ours = _in_turns(receivers, in_one_pdu, rounds)["ours"]
        values["gb_one_pdu_ours_mib_per_s"] = statistics.median(ours)
        if has_dcmtk:
            receivers["storescp"] = programs.storescp
        our_growth = list(growth)
        rates: Rates = {name: [] for name in receivers}
        for _ in range(rounds):
            for name, start in receivers.items():
                growth.clear()
                rates[name] += _in_turns({name: start}, in_pdus, 1)[name]
                if name == "ours":
                    our_growth += growth
        for name, each in rates.items():
            values[f"gb_{name}_mib_per_s"] = statistics.median(each)
        if has_dcmtk:
            values["gb_vs_storescp"] = median_ratio(rates["ours"], rates["storescp"])
            values["gb_one_pdu_vs_storescp"] = median_ratio(ours, rates["storescp"])
        values["gb_growth_mib"] = max(our_growth)
    return values
