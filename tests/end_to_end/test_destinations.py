"""Every type of destination at once, each against a real peer or Google's rules: all get it all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from infra.local.sending import examine, send
from shared.adapters.destinations.association import Peer
from tests.data import build
from tests.google.cloud_storage import BUCKET, storage_server
from tests.google.healthcare import HealthcareStore, healthcare
from tests.peers import LOOPBACK, OrthancPeer, StorescpPeer
from tests.running import RunningAxiom, wait_until

NAMES = [f"n{number}" for number in range(6)]


def data_set(part10: bytes) -> bytes:
    """What follows the File Meta (PS3.10 7.1), which whoever receives by C-STORE writes anew."""
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


class Everywhere:
    """A running system that sends to peers of each kind."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.scp = stack.enter_context(
            StorescpPeer(
                folder / "storescp",
                "--exec-on-reception",
                f"echo #a >> {folder}/callers",
                "--exec-sync",
            )
        )
        self.orthanc = stack.enter_context(OrthancPeer(folder / "orthanc"))
        self.web = stack.enter_context(OrthancPeer(folder / "web"))
        self.store: HealthcareStore = stack.enter_context(healthcare())
        self.cloud = stack.enter_context(storage_server(BUCKET))
        self.axiom = stack.enter_context(
            RunningAxiom(folder / "home", STORAGE_EMULATOR_HOST=self.cloud.url)
        )
        self.axiom.configure(
            destinations=[{"name": name, **one} for name, one in self.destinations().items()],
            settings={"default_route": list(self.destinations())},
        )

    def destinations(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            "folder": {"type": "filesystem", "path": str(self.folder / "folder")},
            "pacs": {
                "type": "dimse",
                "host": LOOPBACK,
                "port": self.scp.port,
                "ae_title": self.scp.ae_title,
                "pass_calling_ae_title": True,
            },
            "web": {"type": "dicomweb", "base_url": self.web.dicomweb_url},
            "orthanc": {"type": "orthanc", "base_url": self.orthanc.rest_url},
            "google": {
                "type": "google_healthcare",
                "project_id": "p",
                "location": "europe-west3",
                "dataset_id": "d",
                "dicom_store_id": "s",
                "base_url": f"{self.store.url}/v1",
            },
            "bucket": {
                "type": "gcs",
                "bucket": BUCKET,
                "template": "{SOPInstanceUID}.dcm",
                "storage_policy": {"tier": "nearline"},
                "rate_limit_per_s": 200,
            },
        }

    def held(self) -> Mapping[str, Any]:
        """The data sets that each has, where that is seen at a glance, else their number."""
        objects = self.cloud.buckets[BUCKET]
        with objects.lock:
            bucket = {data_set(one.data) for one in objects.live.values()}
        folder = (self.folder / "folder").rglob("*.dcm")
        stored = filter(None, (self.store.get(build.uid(name)) for name in NAMES))
        return {
            "folder": {data_set(path.read_bytes()) for path in folder},
            "pacs": len(self.scp.files()),
            "web": len(self.web.instance_ids()),
            "orthanc": len(self.orthanc.instance_ids()),
            "google": {data_set(one) for one in stored},
            "bucket": bucket,
        }


@pytest.fixture
def everywhere(tmp_path: Path) -> Iterator[Everywhere]:
    for peer in (StorescpPeer, OrthancPeer):
        if not peer.is_installed():
            pytest.skip(f"{peer.program} is not installed")
    with ExitStack() as stack:
        yield Everywhere(tmp_path, stack)


def test_all_get_it_all(everywhere: Everywhere, tmp_path: Path) -> None:
    sent = {name: build.ct(instance=name) for name in NAMES}
    (tmp_path / "out").mkdir()
    for name, data in sent.items():
        (tmp_path / "out" / f"{name}.dcm").write_bytes(data)
    for name in everywhere.destinations():
        answer = everywhere.axiom.request("POST", f"/api/v1/destinations/{name}/check").json()
        assert (name, answer["ok"]) == (name, True), answer
    peer = Peer(LOOPBACK, everywhere.axiom.dimse_port, "AXIOM", "CT1", 131072, 60.0)
    results = list(send(map(examine, sorted((tmp_path / "out").iterdir())), peer))
    assert [one.outcome for one in results] == ["sent"] * len(NAMES)
    whole = set(map(data_set, sent.values()))
    wanted = {
        "folder": whole,
        "pacs": len(NAMES),
        "web": len(NAMES),
        "orthanc": len(NAMES),
        "google": whole,
        "bucket": whole,
    }
    wait_until(lambda: everywhere.held() == wanted, what="the same everywhere")
    for orthanc in (everywhere.web, everywhere.orthanc):
        assert {data_set(orthanc.file(build.uid(name))) for name in NAMES} == whole
    callers = (tmp_path / "callers").read_text().split()
    assert callers[-len(NAMES) :] == ["CT1"] * len(NAMES)
    classes = {one.said["storageClass"] for one in everywhere.cloud.buckets[BUCKET].live.values()}
    assert classes == {"NEARLINE"}
