"""STOW-RS as its clients meet it: a real server on loopback, curl and dicomweb-client."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.data import get_testdata_file

from shared import bootstrap
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.environment import Environment
from shared.messages import Topic
from shared.pipeline.ports import Ports
from shared.web.dicomweb import URL_PREFIX

KEY = "a preset key"
MIB = 1 << 20

# The bodies of the handbook, word for word.
CHEST = (
    '{"name":"ct-chest-routing","execution_mode":"FIRST_MATCH","rules":[{"name":"route-ct-chest",'
    '"conditions":[{"type":"tag_equals","tag":"(0x0008,0x0060)","value":"CT"},'
    '{"type":"tag_contains","tag":"(0x0018,0x0015)","value":"CHEST"}],'
    '"actions":[{"type":"set","tag":"(0x0008,0x103E)","value":"CHEST CT - PROCESSED"}],'
    '"storage_backends":["primary-storage"]}]}'
)


class System:
    """The `http` process over a home, and that home seen from outside."""

    def __init__(self, home: Path) -> None:
        environment = Environment.read({"AXIOM_HOME": str(home)})
        self.home = home
        self.ports: Ports = bootstrap.embedded(environment)
        self.ports.configuration.apply(
            {"settings": {"default_route": ["primary-storage"], "min_free_bytes": 0}}, by="test"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shared.web.server"],
            env={
                "AXIOM_HOME": str(home),
                "AXIOM_HTTP_PORT": "0",
                "AXIOM_API_KEY": KEY,
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["message"] == "listening":
                self.port = int(entry["port"])
                break
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def worker_pid(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def received(self) -> list[bytes]:
        """The received files that are published, whole."""
        files = sorted((self.home / "objects").rglob("*.dcm"))
        return [file.read_bytes() for file in files]

    def waiting(self, topic: Topic) -> int:
        bus = self.ports.bus
        assert isinstance(bus, SqliteMessageBus)
        leased = bus.lease([topic], limit=1000, lease_s=0.001)
        return len(leased)

    def curl(self, path: str, *arguments: str) -> tuple[int, str]:
        """The status and the body."""
        done = subprocess.run(
            [
                "curl",
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--write-out",
                "\n%{http_code}",
                "--header",
                f"Authorization: Api-Key {KEY}",
                *arguments,
                self.url + path,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(tmp_path_factory.mktemp("home"))
    yield running
    running.process.send_signal(signal.SIGTERM)
    _, rest = running.process.communicate(timeout=120)
    # The whole run is the canary: these names are in the files, and must not be in the log.
    for name in ("CompressedSamples", "Patient's"):
        assert name not in rest


pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def file(name: str) -> str:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return path


def study_url(system: System) -> str:
    return f"{URL_PREFIX}/studies"


class TestCurl:
    def test_the_requests_of_the_handbook_work_word_for_word(self, system: System) -> None:
        status, body = system.curl(
            "/api/v1/config/rulesets",
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            CHEST,
        )
        assert (status, json.loads(body)["name"]) == (201, "ct-chest-routing")
        path = file("CT_small.dcm")
        status, body = system.curl(
            "/api/v1/dicomweb/studies",
            "-X",
            "POST",
            "-H",
            "Content-Type: application/dicom",
            "--data-binary",
            f"@{path}",
        )
        assert status == 200
        uid = json.loads(body)["00081199"]["Value"][0]["00081155"]["Value"][0]
        assert uid == pydicom.dcmread(path).SOPInstanceUID
        assert Path(path).read_bytes() in system.received()

    @pytest.mark.parametrize(
        "framing",
        [
            ["-H", "Expect: 100-continue"],
            ["-H", "Transfer-Encoding: chunked"],
            ["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"],
            ["--http1.0"],
        ],
    )
    def test_a_body_may_come_in_any_framing(self, system: System, framing: Sequence[str]) -> None:
        path = file("MR_small.dcm")
        status, _ = system.curl(
            study_url(system), "-X", "POST", "-H", "Content-Type: application/dicom", "-T", path,
            *framing,
        )  # fmt: skip
        assert status == 200
        assert Path(path).read_bytes() in system.received()

    def test_a_text_file_is_refused_with_a_reason(self, system: System) -> None:
        status, body = system.curl(
            study_url(system), "-H", "Content-Type: application/dicom", "-d", "plain text"
        )
        assert status == 409
        assert json.loads(body)["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]
        assert system.waiting(Topic.EXCEPTION_RAISED) >= 1

    def test_a_claim_of_10_gb_is_answered_at_once(self, system: System) -> None:
        with socket.create_connection(("127.0.0.1", system.port), timeout=60) as peer:
            peer.sendall(
                f"POST {URL_PREFIX}/studies HTTP/1.1\r\nHost: x\r\nAuthorization: Api-Key {KEY}\r\n"
                f"Content-Type: application/dicom\r\nContent-Length: {10 << 30}\r\n\r\n".encode()
            )
            assert peer.recv(4096).startswith(b"HTTP/1.1 413")

    def test_without_a_key_nothing_is_taken(self, system: System) -> None:
        done = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "--data-binary",
             f"@{file('CT_small.dcm')}", system.url + study_url(system)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "401"

    def test_health_needs_no_key(self, system: System) -> None:
        done = subprocess.run(
            ["curl", "-s", f"{system.url}/health"], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["status"] in ("healthy", "degraded")


class TestDicomwebClient:
    def test_stores_a_mixed_study(self, system: System) -> None:
        client = DICOMwebClient(
            f"{system.url}{URL_PREFIX}", headers={"Authorization": f"Api-Key {KEY}"}
        )
        data_sets = [
            pydicom.dcmread(file(name))
            for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm")
        ]
        answer = client.store_instances(data_sets)
        stored = {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence}
        assert stored == {data_set.SOPInstanceUID for data_set in data_sets}
        for data_set in data_sets:
            buffer = io.BytesIO()
            pydicom.dcmwrite(buffer, data_set)
            assert buffer.getvalue() in system.received()

    def test_is_told_of_the_study_it_missed(self, system: System) -> None:
        client = DICOMwebClient(
            f"{system.url}{URL_PREFIX}", headers={"Authorization": f"Api-Key {KEY}"}
        )
        with pytest.raises(Exception, match="409"):
            client.store_instances([pydicom.dcmread(file("CT_small.dcm"))], "1.2.3")


class TestLargeAndBroken:
    def test_a_sender_that_goes_away_leaves_nothing(self, system: System) -> None:
        before = system.received()
        part10 = Path(file("CT_small.dcm")).read_bytes()
        head = (
            f"POST {URL_PREFIX}/studies HTTP/1.1\r\nHost: x\r\nAuthorization: Api-Key {KEY}\r\n"
        ).encode()
        part = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + part10[:20_000]
        multipart = b'Content-Type: multipart/related; type="application/dicom"; boundary=B\r\n'
        bodies = [
            multipart + b"Content-Length: 40000\r\n\r\n" + part,
            multipart + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(part) + part + b"\r\n",
            multipart + b"Transfer-Encoding: chunked\r\n\r\n9999\r\n" + part,
            b"Content-Type: application/dicom\r\nContent-Length: 99999\r\n\r\n" + part10,
        ]
        for body in bodies:
            with socket.create_connection(("127.0.0.1", system.port), timeout=60) as peer:
                peer.sendall(head + body)
                peer.shutdown(socket.SHUT_WR)
                # Whoever still listens is told that it was no success.
                assert peer.recv(4096).startswith(b"HTTP/1.1 400")
        assert system.received() == before
        leftovers = [path for path in (system.home / "objects").rglob("*") if path.is_file()]
        published = [path for path in leftovers if path.suffix in (".dcm", ".json")]
        assert leftovers == published

    def test_a_large_instance_is_never_held_whole(self, system: System, tmp_path: Path) -> None:
        data_set = pydicom.dcmread(file("CT_small.dcm"))
        del data_set.PixelData
        header = io.BytesIO()
        data_set.save_as(header)
        path = tmp_path / "large.dcm"
        size = 256 * MIB
        with path.open("wb") as large:
            large.write(header.getvalue())
            large.write(b"\xe0\x7f\x10\x00OW\x00\x00" + size.to_bytes(4, "little"))
            large.truncate(large.tell() + size)
        system.curl("/health")
        before_kib = peak_kib(system.worker_pid)
        began_s = time.monotonic()
        status, body = system.curl(
            study_url(system), "-X", "POST", "-H", "Content-Type: application/dicom",
            "-T", str(path),
        )  # fmt: skip
        assert status == 200, body
        print(f"{size / MIB / (time.monotonic() - began_s):.0f} MiB/s", end=" ")
        assert peak_kib(system.worker_pid) - before_kib < 64 * 1024


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
