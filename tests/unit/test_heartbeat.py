"""Signs of life: who lives, who died, who only seems to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from infra.local import heartbeat
from shared.complaints import complain


def write_beat(run_dir: Path, *, pid: int, beat_s: float) -> None:
    run_dir.mkdir(exist_ok=True)
    beat = {"part": "stages", "pid": pid, "started_s": 0.0, "beat_s": beat_s}
    (run_dir / "stages.json").write_text(json.dumps(beat))


def test_a_part_that_beats_is_alive(tmp_path: Path) -> None:
    beating = heartbeat.Heartbeat("stages", tmp_path / "run")
    beating.start()
    assert heartbeat.fault(tmp_path / "run", "stages") is None
    found = heartbeat.read(tmp_path / "run", "stages")
    assert found is not None
    assert found.pid == os.getpid()
    beating.stop()


def test_a_part_that_never_began_is_not_running(tmp_path: Path) -> None:
    assert heartbeat.fault(tmp_path, "stages") == "not running"


def test_a_part_that_hangs_shows_no_sign_of_life(tmp_path: Path) -> None:
    write_beat(tmp_path, pid=os.getpid(), beat_s=100.0)
    assert heartbeat.fault(tmp_path, "stages", now_s=105.0) is None
    assert heartbeat.fault(tmp_path, "stages", now_s=130.0) == "no sign of life for 30 s"


def test_a_file_from_before_the_machine_started_again_counts_for_nothing(tmp_path: Path) -> None:
    """The monotonic clock starts anew with the machine, and pids are given out again."""
    write_beat(tmp_path, pid=os.getpid(), beat_s=time.monotonic() + 1000)
    assert heartbeat.fault(tmp_path, "stages") == "no sign of life"


def test_a_part_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_beat(tmp_path, pid=ended.pid, beat_s=time.monotonic())
    assert heartbeat.fault(tmp_path, "stages") == f"process {ended.pid} has died"


def test_a_file_that_cannot_be_read_is_no_sign_of_life(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text("{")
    assert heartbeat.fault(tmp_path, "stages") == "not running"


def test_a_part_that_lives_and_complains_says_why_until_it_begins_anew(tmp_path: Path) -> None:
    write_beat(tmp_path / "run", pid=os.getpid(), beat_s=time.monotonic())
    complain(tmp_path / "run", "stages", "listener main: 127.0.0.1:104: Permission denied")
    assert heartbeat.fault(tmp_path / "run", "stages") == (
        "listener main: 127.0.0.1:104: Permission denied"
    )
    complain(tmp_path / "run", "stages", "")
    assert heartbeat.fault(tmp_path / "run", "stages") is None
    complain(tmp_path / "run", "stages", "of its predecessor")
    beating = heartbeat.Heartbeat("stages", tmp_path / "run")
    beating.start()
    beating.stop()
    assert heartbeat.fault(tmp_path / "run", "stages") is None
