"""A disk that fills up: senders are told so, and it goes on by itself once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from infra.local.sending import SENT, SendResult, examine, send
from infra.local.torture.instances import data_set_of
from shared.adapters.destinations.association import Peer
from tests.data import build
from tests.running import RunningAxiom, wait_until

StartAxiom = Callable[..., RunningAxiom]

pytestmark = [pytest.mark.xdist_group("destruction"), pytest.mark.timeout(200)]

_MIB = 1 << 20
_INSTANCES = 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def instances(folder: Path) -> list[SendResult]:
    """Each has 2 MiB."""
    found = []
    for number in range(_INSTANCES):
        path = folder / f"{number}.dcm"
        path.write_bytes(build.ct(1024, 1024, instance=f"full-{number}"))
        found.append(examine(path))
    return found


def fill(path: Path, *, leave: int) -> None:
    """Take all room but so many bytes."""
    free = os.statvfs(path.parent)
    size = free.f_bavail * free.f_frsize - leave
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(bytes(_MIB))


def test_a_full_disk_refuses_and_recovers(
    small_disk: Path, axiom_up: StartAxiom, tmp_path: Path
) -> None:
    """Acknowledged is only what is kept, also while every write fails."""
    running = axiom_up(small_disk / "home")
    archive = tmp_path / "archive"
    running.configure(
        destinations=[{"name": "archive", "type": "filesystem", "path": str(archive)}],
        settings={"default_route": ["archive"], "min_free_bytes": 0},
    )
    filler = small_disk / "filler"
    fill(filler, leave=5 * _MIB)
    (tmp_path / "sent").mkdir()
    files = instances(tmp_path / "sent")
    peer = Peer("127.0.0.1", running.dimse_port, "AXIOM", "TEST", 65536, 30.0)

    first = list(send(files, peer))
    refused = [result for result in first if result.outcome != SENT]
    assert refused
    assert {result.dimse_status for result in refused} == {"A700H"}
    # Nothing at all can be written now.
    with suppress(OSError), (small_disk / "rest").open("wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass
    answer = running.request(
        "POST",
        "/api/v1/dicomweb/studies",
        data=files[0].path.read_bytes(),
        headers={"Content-Type": "application/dicom"},
    )
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0

    filler.unlink()
    (small_disk / "rest").unlink()
    waiting = [result.path for result in refused]

    def all_are_taken() -> bool:
        results = list(send([examine(path) for path in waiting], peer))
        waiting[:] = [result.path for result in results if result.outcome != SENT]
        return not waiting

    # The watermark is looked at once a second, and opens with a margin.
    wait_until(all_are_taken, 20, "room to be noticed")
    wait_until(lambda: len(list(archive.rglob("*.dcm"))) == _INSTANCES, 60.0, "all of them")
    sent = {data_set_of(result.path.read_bytes()) for result in files}
    assert {data_set_of(path.read_bytes()) for path in archive.rglob("*.dcm")} == sent
    assert running.get_all("/api/v1/exceptions") == []
