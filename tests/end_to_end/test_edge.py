"""A gateway on premises as a process, with Google's emulators beyond a link that breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from google.cloud import firestore

from shared.adapters.cloud.document_store import FirestoreDocumentStore
from shared.adapters.cloud.object_store import BucketObjectStore
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.config.service import ConfigurationService
from shared.messages import InstanceReceived, Receipt, decode
from shared.pipeline import edges
from shared.pipeline.envelope import open_envelope
from shared.pipeline.push import PushRequest
from tests.data import build
from tests.end_to_end.test_gateway_process import store
from tests.gateway import (
    COMMAND,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    VERIFICATION,
    RawPeer,
    echo_rq,
    p_data,
    pdv,
)
from tests.google.cloud_storage import cloud_storage
from tests.google.emulators import emulator
from tests.link import Link, link_to
from tests.peers import free_port
from tests.running import wait_until

PROJECT = "demo-edge"
ROOT = Path(__file__).parents[2]


class Cloud:
    """What the gateway moves to, asked past the link."""

    def __init__(self, pubsub: str, bucket: Any) -> None:
        self.documents = FirestoreDocumentStore(firestore.Client(project=PROJECT))
        self.objects = BucketObjectStore(bucket)
        self._pubsub = f"http://{pubsub}/v1/projects/{PROJECT}"
        self.receipts: list[Receipt] = []
        for topic in ("instance-received", "exception-raised"):
            requests.put(f"{self._pubsub}/topics/{topic}", timeout=30).raise_for_status()
        requests.put(
            f"{self._pubsub}/subscriptions/received",
            json={"topic": f"projects/{PROJECT}/topics/instance-received"},
            timeout=30,
        ).raise_for_status()

    def has(self, *names: str) -> bool:
        """Whether it was told of Instances of these names, and of no others."""
        pulled = requests.post(
            f"{self._pubsub}/subscriptions/received:pull",
            json={"maxMessages": 100, "returnImmediately": True},
            timeout=30,
        ).json()
        for one in pulled.get("receivedMessages", ()):
            body = json.dumps({"message": one["message"]}).encode()
            pushed = open_envelope(PushRequest(body, {}))
            self.receipts.append(decode(pushed.data, InstanceReceived).receipt)
            requests.post(
                f"{self._pubsub}/subscriptions/received:acknowledge",
                json={"ackIds": [one["ackId"]]},
                timeout=30,
            ).raise_for_status()
        return {one.sop_instance_uid for one in self.receipts} == {
            build.uid(name) for name in names
        }


class EdgeProcess:
    """`python -m scp_gateway.main` with a spool."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port, self.health_port = free_port(), free_port()
        self._folder, self._settings = folder, settings
        self._log = folder / "gateway.log"
        self.start()

    def start(self, **settings: str) -> None:
        """Start it, and return once it takes associations. `settings` hold from now on."""
        self._settings |= settings
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scp_gateway.main"],
                env={
                    **os.environ,
                    "AXIOM_PLATFORM": "cloud",
                    "AXIOM_HOME": str(self._folder / "home"),
                    "AXIOM_GATEWAY_SPOOL": str(self._folder / "spool"),
                    "AXIOM_INSTANCE": "clinic-1",
                    "AXIOM_DIMSE_PORT": str(self.port),
                    "AXIOM_HEALTH_PORT": str(self.health_port),
                    **self._settings,
                },
                stderr=log,
                cwd=ROOT,
            )
        wait_until(self._receives, what=f"the gateway; {self._log}")

    def kill(self) -> None:
        """As a power cut."""
        self.process.kill()
        self.process.wait()

    def send(self, name: str) -> int:
        """C-STORE one Instance; its status."""
        with RawPeer(self.port) as peer:
            peer.associate()
            peer.send(store(build.ct(instance=name), instance=name))
            return peer.receive_status()

    def spool(self) -> dict[str, Any]:
        """What the health port says of it."""
        found: dict[str, Any] = self._health().json()["spool"]
        return found

    def _receives(self) -> bool:
        # Not whether the port answers: workers of the one that was killed may still have it.
        assert self.process.poll() is None, self._log.read_text()
        with suppress(requests.RequestException):
            return self._health().status_code == 200
        return False

    def _health(self) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.health_port}/health", timeout=30)


@pytest.fixture
def cloud_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Cloud, list[Link], dict[str, str]]]:
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        starting = [
            pool.submit(stack.enter_context, emulator(name, tmp_path))
            for name in ("firestore", "pubsub")
        ]
        documents, pubsub = (one.result() for one in starting)
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", documents)
        bucket = stack.enter_context(cloud_storage())
        cloud = Cloud(pubsub, bucket)
        ConfigurationService(
            cloud.objects, cloud.documents, FileSecretStore(tmp_path / "secrets"), SystemClock()
        ).apply({"settings": {"min_free_bytes": 0}}, by="test")
        ports = [
            int(address.rpartition(":")[2])
            for address in (documents, pubsub, bucket.client._connection.API_BASE_URL)
        ]
        links = [stack.enter_context(link_to(port)) for port in ports]
        settings = {
            "AXIOM_PROJECT": PROJECT,
            "AXIOM_BUCKET": bucket.name,
            "AXIOM_OIDC": "off",
            "FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{links[0].port}",
            "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{links[1].port}",
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{links[2].port}",
        }
        yield cloud, links, settings


def test_what_is_received_while_the_link_is_cut_arrives_when_it_is_back(
    cloud_and_links: tuple[Cloud, list[Link], dict[str, str]], tmp_path: Path
) -> None:
    """Killed twice in between, once with the link down: it starts without it, then as two."""
    cloud, links, settings = cloud_and_links
    edge = EdgeProcess(tmp_path, **settings)
    try:
        assert edge.send("before") == 0
        wait_until(lambda: cloud.has("before"), what="the first Instance")

        for link in links:
            link.cut()
        assert edge.send("cut-1") == 0
        edge.kill()
        edge.start(AXIOM_GATEWAY_PROCESSES="2")
        assert edge.send("cut-2") == 0
        with RawPeer(edge.port) as peer:
            peer.associate([(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))])
            peer.send(p_data(pdv(1, COMMAND | LAST, echo_rq())))
            assert peer.receive_status() == 0
        wait_until(lambda: edge.spool()["link"], what="word that the link is down")
        assert edge.spool()["messages"] == 2
        assert edge.spool()["link_down_since"]

        for link in links:
            link.mend()
        wait_until(lambda: cloud.has("before", "cut-1", "cut-2"), what="what came meanwhile")
        edge.kill()
        edge.start()
        assert edge.send("after") == 0
        wait_until(lambda: cloud.has("before", "cut-1", "cut-2", "after"), what="all of it")
        wait_until(lambda: edge.spool()["messages"] == 0, what="an empty spool")

        for receipt in cloud.receipts:
            assert cloud.objects.stat(receipt.file.object_name).crc32c == receipt.file.crc32c
        assert len({one.receipt_id for one in cloud.receipts}) == 4
        [seen] = wait_until(lambda: edges.seen(cloud.documents, SystemClock()), what="a word")
        assert (seen.name, seen.state.configuration) == ("clinic-1", 1)
    finally:
        edge.kill()
