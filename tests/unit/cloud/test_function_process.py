"""A function in a process of its own, as Cloud Run starts and ends it."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import requests

from shared.adapters.embedded.document_store import SqliteDocumentStore
from tests.data import build
from tests.unit.cloud.processes import ROOT, FunctionProcess, post_over_http2

KEY = "test-key-of-the-function-process"
MIB = 1 << 20


def test_answers_a_push_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with FunctionProcess("record_dead_letter", tmp_path / "log", AXIOM_HOME=str(home)) as function:
        data = base64.b64encode(b"{}").decode()
        attributes = {"axiom-topic": "job-requested"}
        body = {"message": {"data": data, "attributes": attributes, "messageId": "1"}}
        assert requests.post(function.url, json=body, timeout=60).status_code == 204
        assert requests.post(function.url, data=b"?", timeout=60).status_code == 204
        assert function.terminate() == 0
    documents = SqliteDocumentStore(home / "documents.db")
    (entry,) = documents.query("exceptions").documents
    documents.close()
    assert entry.data["code"] == "retries-spent"


def test_says_in_one_line_which_setting_is_missing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "infra.images.serve"],
        cwd=ROOT,
        env={
            "FUNCTION_TARGET": "validate_instance",
            "AXIOM_PLATFORM": "cloud",
            "AXIOM_PROJECT": "p",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert ran.stderr == "AXIOM_PLATFORM=cloud needs AXIOM_BUCKET\n"


def test_takes_a_request_of_any_size_over_http2_without_holding_it(tmp_path: Path) -> None:
    """A request of HTTP/1 ends at 32 MiB on Cloud Run."""
    settings = {
        "AXIOM_HOME": str(tmp_path / "home"),
        "AXIOM_API_KEY": KEY,
        "AXIOM_HTTP2": "true",
    }
    instance = build.ct(256, 256)
    part = b"--B\r\nContent-Type: application/dicom\r\n\r\n"
    # What follows the Pixel Data is part of the Instance as well.
    trailing = build.element(0xFFFCFFFC, "OB", b"")[:-4] + (64 * MIB).to_bytes(4, "little")

    def pieces() -> Iterator[bytes]:
        yield part + instance + trailing
        for _ in range(64):
            yield bytes(MIB)
        yield b"\r\n--B--\r\n"

    with FunctionProcess("dicomweb", tmp_path / "log", **settings) as function:
        headers = {
            "content-type": "multipart/related; type=application/dicom; boundary=B",
            "authorization": f"Api-Key {KEY}",
            "accept": "application/dicom+json",
        }
        path = "/api/v1/dicomweb/studies"
        small = iter([part + build.ct(instance="small") + b"\r\n--B--\r\n"])
        assert post_over_http2(function.port, path, headers, small)[0] == 200
        before_kib = function.largest_worker_kib()
        status, body = post_over_http2(function.port, path, headers, pieces())
        assert (status, function.log()[-500:] if status != 200 else "") == (200, ""), body
        assert function.largest_worker_kib() - before_kib < 40 * 1024
    (stored,) = (one for one in (tmp_path / "home").rglob("*.dcm") if one.stat().st_size > 32 * MIB)
    assert stored.stat().st_size == len(instance) + len(trailing) + 64 * MIB
