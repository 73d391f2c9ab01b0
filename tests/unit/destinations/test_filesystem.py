"""Delivery into a folder: whole, durable, never outside it, never over another file."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.destinations import filesystem
from shared.adapters.destinations.filesystem import FolderDestination
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationUnavailableError,
    InstanceConflictError,
)
from tests.data import build
from tests.unit.destinations.received import outgoing

DEFLATED = "1.2.840.10008.1.2.1.99"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage" / "primary"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


@pytest.fixture(params=["unnamed", "hard link", "rename"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system offers: Linux's own, one without unnamed files, one without links."""
    if request.param != "unnamed":
        monkeypatch.setattr(filesystem, "_O_TMPFILE", 0)
    if request.param == "rename":

        def no_links(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    return str(request.param)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("has_descriptor", [True, False])
def test_the_file_holds_the_edited_header_and_the_received_pixels(
    root: Path, staging: Path, file_system: str, has_descriptor: bool
) -> None:
    received, edited = build.ct(64, 64), build.ct(64, 64, patient_id="SOMEBODY-ELSE")
    instance = outgoing(staging, received, edited, has_descriptor=has_descriptor)
    path = FolderDestination("folder", root).deliver(instance)
    assert (root / path).read_bytes() == edited
    assert files(root) == [root / path]


def test_equal_bytes_a_second_time_are_success(root: Path, staging: Path, file_system: str) -> None:
    destination = FolderDestination("folder", root)
    first, second = (destination.deliver(outgoing(staging, build.ct())) for _ in range(2))
    assert first == second
    assert len(files(root)) == 1


def test_other_bytes_are_a_conflict_and_change_nothing(
    root: Path, staging: Path, file_system: str
) -> None:
    destination = FolderDestination("folder", root)
    path = destination.deliver(outgoing(staging, build.ct()))
    with pytest.raises(InstanceConflictError) as caught:
        destination.deliver(outgoing(staging, build.ct(patient_id="OTHER-001")))
    uid, stored, received = caught.value.args
    assert uid == build.uid("ct-1")
    assert stored != received
    assert (root / path).read_bytes() == build.ct()
    assert len(files(root)) == 1


def test_other_bytes_of_the_same_instance_replace_it_if_they_are_to(
    root: Path, staging: Path, file_system: str
) -> None:
    destination = FolderDestination("folder", root)
    path = destination.deliver(outgoing(staging, build.ct()))
    newer = build.ct(patient_id="OTHER-001")
    assert destination.deliver(replace(outgoing(staging, newer), replaces=True)) == path
    assert (root / path).read_bytes() == newer
    assert len(files(root)) == 1


def test_what_gives_way_is_gone_where_the_template_gave_it_another_name(
    root: Path, staging: Path, file_system: str
) -> None:
    """Else a reader of the folder finds both."""
    destination = FolderDestination("folder", root)
    earlier = destination.deliver(outgoing(staging, build.ct()))
    newer = build.ct(series="another-series")
    instance = replace(outgoing(staging, newer), replaces=True, earlier_answer=earlier)
    for _ in range(2):
        path = destination.deliver(instance)
        assert [root / path] == files(root)
    assert (root / path).read_bytes() == newer


@pytest.mark.parametrize("earlier", ["../outside.dcm", "no/such/file.dcm", "other.dcm", "/x", ""])
def test_nothing_else_gives_way(root: Path, staging: Path, file_system: str, earlier: str) -> None:
    """Whatever our records say: only a file of the same Instance below the root is deleted."""
    destination = FolderDestination("folder", root, "{SOPInstanceUID}.dcm")
    root.mkdir(parents=True)
    (root.parent / "outside.dcm").write_bytes(build.ct())
    (root / "other.dcm").write_bytes(build.ct(instance="ct-2"))
    instance = replace(outgoing(staging, build.ct()), replaces=True, earlier_answer=earlier)
    destination.deliver(instance)
    assert (root.parent / "outside.dcm").exists()
    assert len(files(root)) == 2


def test_another_instance_under_the_same_name_is_never_replaced(
    root: Path, staging: Path, file_system: str
) -> None:
    """A template may give two Instances one name."""
    destination = FolderDestination("folder", root, "{StudyInstanceUID}.dcm")
    path = destination.deliver(outgoing(staging, build.ct()))
    other = replace(outgoing(staging, build.ct(instance="ct-2")), replaces=True)
    with pytest.raises(InstanceConflictError):
        destination.deliver(other)
    assert (root / path).read_bytes() == build.ct()


def test_of_several_at_once_one_writes_and_all_succeed(
    root: Path, staging: Path, file_system: str
) -> None:
    destination = FolderDestination("folder", root)
    instances = [outgoing(staging, build.ct(128, 128)) for _ in range(8)]
    start = threading.Barrier(len(instances))
    paths: list[str] = []

    def deliver(index: int) -> None:
        start.wait()
        paths.append(destination.deliver(instances[index]))

    threads = [threading.Thread(target=deliver, args=(i,)) for i in range(len(instances))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == len(instances)
    assert len(files(root)) == 1


def test_deflated_instances_are_stored_deflated(root: Path, staging: Path) -> None:
    received = build.ct(transfer_syntax_uid=DEFLATED)
    edited = build.ct(patient_id="X", transfer_syntax_uid=DEFLATED)
    destination = FolderDestination("folder", root)
    path = destination.deliver(outgoing(staging, received, edited))
    assert destination.deliver(outgoing(staging, received, edited)) == path


def test_a_symbolic_link_inside_does_not_lead_outside(
    root: Path, staging: Path, tmp_path: Path
) -> None:
    """Whoever may write below the root must not choose what we overwrite elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir(parents=True)
    (root / build.uid("study")).symlink_to(outside)
    with pytest.raises(DestinationMisconfiguredError):
        FolderDestination("folder", root).deliver(outgoing(staging, build.ct()))
    assert list(outside.iterdir()) == []


def test_the_group_can_use_what_the_umask_allows(root: Path, staging: Path) -> None:
    before = os.umask(0o002)
    try:
        path = root / FolderDestination("folder", root).deliver(outgoing(staging, build.ct()))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o664
    assert path.parent.stat().st_mode & 0o777 == 0o775


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, DestinationUnavailableError),
        (errno.EDQUOT, DestinationUnavailableError),
        (errno.EIO, DestinationUnavailableError),
        (errno.EACCES, DestinationMisconfiguredError),
        (errno.EROFS, DestinationMisconfiguredError),
    ],
)
def test_what_the_disk_says_decides_whether_to_try_again(
    root: Path,
    staging: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_system: str,
    code: int,
    error: type[Exception],
) -> None:
    def full(*_: Any) -> int:
        raise OSError(code, "the disk says no")

    instance = outgoing(staging, build.ct(), has_descriptor=False)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(error):
        FolderDestination("folder", root).deliver(instance)
    monkeypatch.undo()
    assert files(root) == [], "nothing half-written stays"


def test_a_file_in_place_of_the_root_is_a_wrong_configuration(staging: Path) -> None:
    (staging / "file").write_bytes(b"")
    with pytest.raises(DestinationMisconfiguredError):
        FolderDestination("folder", staging / "file" / "sub").check()


def test_check_writes_and_leaves_nothing(root: Path, file_system: str) -> None:
    assert "writable" in FolderDestination("folder", root).check()
    assert list(root.iterdir()) == []


def test_an_unusable_template_is_said_at_once(root: Path) -> None:
    with pytest.raises(DestinationMisconfiguredError, match="PatientID"):
        FolderDestination("folder", root, "{PatienID}")
