"""The benches' own parts: a wrong input or sender would measure something else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infra.local import bench_coldstart
from infra.local.benches import TARGETS, Row, details, markdown, notes, rows_of
from infra.local.benching import programs
from infra.local.benching.disk_floor import kept_per_s
from infra.local.benching.instances import synthetic_ct, synthetic_multi_frame
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.dicom.header import read_header
from shared.dicom.validation import validate


def test_synthetic_instances_have_nothing_that_validation_finds(tmp_path: Path) -> None:
    synthetic_ct(tmp_path, 2)
    synthetic_multi_frame(tmp_path / "large.dcm", 2)
    store = FolderObjectStore(tmp_path)
    for name in ("00001.dcm", "00002.dcm", "large.dcm"):
        with store.open(name) as reader:
            assert validate(read_header(reader), reader) == ()


def test_the_raw_sender_delivers_every_byte(tmp_path: Path) -> None:
    """In a process of its own, for it forks."""
    files = synthetic_ct(tmp_path / "ct", 3, rows=64, columns=64)
    with programs.gateway(tmp_path / "home") as gateway:
        code = (
            "import sys; from pathlib import Path\n"
            "from infra.local.benching.raw_sender import send\n"
            "port, *files = sys.argv[1:]\n"
            "print(send(int(port), [Path(f) for f in files], associations=2).count)\n"
            "print(send(int(port), [Path(files[0])], one_pdu=True).count)\n"
        )
        sent = subprocess.run(
            [sys.executable, "-c", code, str(gateway.port), *map(str, files)],
            cwd=programs.ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    assert sent.stdout.split() == ["3", "1"]
    received = sorted((tmp_path / "home" / "objects" / "received").rglob("*.dcm"))
    assert len(received) == 4
    store = FolderObjectStore(tmp_path)
    bodies = set()
    for path in [*files, *received]:
        with store.open(str(path.relative_to(tmp_path))) as reader:
            start = read_header(reader).meta_end
            bodies.add(reader.read_at(start, reader.size))
    assert len(bodies) == 3


def test_the_disk_is_asked_to_keep_every_file(tmp_path: Path) -> None:
    try:
        assert kept_per_s(tmp_path, 5000, count=7, at_once=3) > 0
    except OSError:
        # The bench goes without, as the gateway does there.
        assert not FolderObjectStore(tmp_path / "store")._links_nameless
        return
    assert [path.stat().st_size for path in tmp_path.glob("*.dcm")] == [5000] * 7


def test_what_people_wrote_below_the_table_stays() -> None:
    page = markdown([], {"cores": "2"}, "axiom bench") + "\n## Notes\n\nWhy.\n"
    assert markdown([], {"cores": "4"}, "axiom bench") + notes(page) == page.replace("2", "4", 1)
    assert notes("# Benchmarks\n") == ""


def test_a_target_that_was_not_measured_is_left_out() -> None:
    target = TARGETS["header"]["ratio_vs_pydicom"]
    assert rows_of("header", {"ratio_vs_pydicom": 0.1, "other": 3}) == [
        Row("header", "ratio_vs_pydicom", 0.1, target)
    ]


def test_the_cold_start_of_every_function_is_told() -> None:
    """A function that is new is one that nobody has measured."""
    folders = {path.parent.name for path in (programs.ROOT / "functions").glob("*/main.py")}
    assert set(bench_coldstart.USES) == folders
    values = {"cloud": {"api": {"import_cpu_s": 0.961, "answer_cpu_s": 1.204}}}
    assert details("coldstart", values)[1:] == [("api", "0.96", "1.20")]
    assert details("memory", {}) == []
