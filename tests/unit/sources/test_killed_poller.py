"""The same poll with the poller killed at random, for each type of source: all comes, none is lost.

`tests/end_to_end/test_sources.py` does so with the running system and Orthanc, over DICOMweb and by
C-MOVE; here it is C-GET, the stand-ins of Google's and folders, and a poller that is forked.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from shared.pipeline.polling import Poller
from shared.pipeline.source_states import state_of
from tests.data import build
from tests.embedded_system import System
from tests.google.cloud_storage import BUCKET, cloud_storage
from tests.google.healthcare import STORE, healthcare
from tests.peers import LOOPBACK
from tests.unit.sources.test_dimse import Scp

NAMES = tuple(f"killed-{n}" for n in range(12))
# Each child is killed within so long, at any moment.
LONGEST_S = 0.4
FORK = multiprocessing.get_context("fork")

Place = Callable[[ExitStack, Path, pytest.MonkeyPatch], dict[str, Any]]


def in_a_folder(stack: ExitStack, home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    folder = home / "incoming" / "scans"
    folder.mkdir(parents=True)
    for name in NAMES[:8]:
        (folder / f"{name}.dcm").write_bytes(build.ct(instance=name))
    (folder / "rest.zip").write_bytes(_zipped(NAMES[8:]))
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return {"type": "folder", "path": "scans"}


def in_a_bucket(stack: ExitStack, home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    bucket = stack.enter_context(cloud_storage())
    patch.setenv("STORAGE_EMULATOR_HOST", bucket.client._connection.API_BASE_URL)
    for name in NAMES[:8]:
        bucket.blob(f"{name}.dcm").upload_from_string(build.ct(instance=name))
    bucket.blob("rest.zip").upload_from_string(_zipped(NAMES[8:]))
    return {"type": "bucket", "bucket": BUCKET, "settle_s": 0}


def at_google(stack: ExitStack, home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    store = stack.enter_context(healthcare())
    for n, name in enumerate(NAMES):
        store.put(build.ct(instance=name, series=f"s{n % 3}", study=f"study-{n % 4}"))
    fields = ("project_id", "location", "dataset_id", "dicom_store_id")
    named = dict(zip(fields, STORE.split("/")[1::2], strict=True))
    return {"type": "google_healthcare", "base_url": f"{store.url}/v1", **named}


def at_a_pacs(stack: ExitStack, home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    scp = Scp()
    stack.callback(scp.close)
    scp.put(*NAMES)
    return {"type": "dimse_qr", "ae_title": "PACS", "host": LOOPBACK, "port": scp.port}


def _zipped(names: tuple[str, ...]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, build.ct(instance=name))
    return made.getvalue()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("place", [in_a_folder, in_a_bucket, at_google, at_a_pacs])
def test_all_comes_though_the_poller_is_killed_at_any_moment(
    place: Place, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    source = {"name": "peer", "poll_interval": 60, **place(stack, home, monkeypatch)}
    if "path" not in source and "bucket" not in source:
        source["lookback"] = "30000d"
    chance = random.Random(8)
    for _ in range(3):
        # What is open in this process is not for a child to use: it opens the home itself.
        child = FORK.Process(target=_poll, args=(home, source))
        child.start()
        time.sleep(chance.uniform(0, LONGEST_S))
        child.kill()
        child.join()
    system = System(home)
    system.ports.configuration.apply({"sources": [source]}, by="test")
    wanted = sorted(map(build.uid, NAMES))
    for _ in range(20):
        # A killed poller's hold on its source ends, and so does the pause after a failure.
        system.clock.advance(3600)
        Poller(system.ports).run()
        system.work()
        if _received(system) == wanted:
            break
    assert _received(system) == wanted, state_of("peer", system.ports)


def _poll(home: Path, source: dict[str, Any]) -> None:
    system = System(home)
    system.ports.configuration.apply({"sources": [source]}, by="test")
    Poller(system.ports).run()


def _received(system: System) -> list[str]:
    """The UIDs that came, each once: equal bytes may come twice."""
    page = system.ports.documents.query("instances", limit=500)
    return sorted({document.data["sop_instance_uid"] for document in page.documents})
