"""Requests over keep-alive connections that each ask again once they are answered, made by wrk."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.local.benching import programs
from infra.local.benching.programs import BenchError

_MOST_S = 60.0

# wrk's own report has no 95th percentile. Latencies are in microseconds.
_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p95_us": %d}',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(95)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """How requests went: how many a second, and how long half and 95 of 100 took at most."""

    per_s: float
    p50_ms: float
    p95_ms: float


def load(port: int, path: str, key: str, *, connections: int, seconds: int) -> Load:
    """Ask for so long over so many connections.

    Raises: BenchError if there is no wrk, or a request fails.
    """
    wrk = programs.find("wrk")
    if wrk is None:
        raise BenchError("there is no wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "report.lua"
        script.write_text(_REPORT, encoding="ascii")
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
        command += ["-H", f"Authorization: Api-Key {key}", f"http://127.0.0.1:{port}{path}"]
        ran = subprocess.run(  # noqa: S603 (of Debian, with words of ours)
            command, capture_output=True, text=True, timeout=_MOST_S, check=False
        )
    if ran.returncode:
        raise BenchError(f"wrk: {ran.stderr[-300:]}")
    told = json.loads(ran.stdout.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise BenchError(f"{told['failed']} of {told['requests']} requests failed")
    return Load(
        per_s=1e6 * told["requests"] / told["duration_us"],
        p50_ms=told["p50_us"] / 1000,
        p95_ms=told["p95_us"] / 1000,
    )
