"""A small Cloud Storage that honours every precondition, for the real client.

The emulators that can be had ignore preconditions on resumable uploads or altogether, which is the
one promise that we lean on. This one speaks the part of the JSON API that our adapter uses, with
object versioning on, and keeps all in memory.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google.cloud.storage as storage
import google_crc32c
from google.auth.credentials import AnonymousCredentials

BUCKET = "received"


@dataclass
class _Object:
    name: str
    generation: int
    data: bytes
    said: dict[str, Any]
    bucket: str

    def shown(self) -> dict[str, Any]:
        sum_ = google_crc32c.value(self.data).to_bytes(4, "big")
        told: dict[str, Any] = {
            key: self.said[key] for key in ("metadata", "contentType") if key in self.said
        }
        return {
            **told,
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": self.name,
            "generation": str(self.generation),
            "metageneration": "1",
            "size": str(len(self.data)),
            "crc32c": base64.b64encode(sum_).decode(),
        }


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Store:
    """All objects: live ones by name, every generation by name and number."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.lock = threading.Lock()
        self.live: dict[str, _Object] = {}
        self.generations: dict[tuple[str, int], _Object] = {}
        self.sessions: dict[str, tuple[dict[str, Any], dict[str, str], bytearray]] = {}
        self.next = 1_700_000_000_000_000

    def check(self, name: str, query: dict[str, str]) -> None:
        found = self.live.get(name)
        generation = found.generation if found else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            raise _RefusedError(412, "At least one of the pre-conditions did not hold.")

    def insert(self, said: dict[str, Any], data: bytes, query: dict[str, str]) -> _Object:
        name, claimed = said["name"], said.get("crc32c")
        with self.lock:
            self.check(name, query)
            self.next += 1
            made = _Object(name, self.next, data, said, self.bucket)
            if claimed not in (None, made.shown()["crc32c"]):
                raise _RefusedError(400, "Provided CRC32C does not match.")
            self.live[name] = self.generations[name, made.generation] = made
            return made

    def find(self, name: str, query: dict[str, str]) -> _Object:
        found = (
            self.generations.get((name, int(query["generation"])))
            if "generation" in query
            else self.live.get(name)
        )
        if found is None:
            raise _RefusedError(404, "No such object.")
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, answer: Any) -> None:
        parts = urlsplit(self.path)
        self.path = parts.path
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        try:
            answer()
        except _RefusedError as error:
            said = {"error": {"code": error.status, "message": str(error)}}
            self._send(error.status, json.dumps(said).encode())

    def _get(self) -> None:
        store = self.server.store
        if self.path == f"/storage/v1/b/{store.bucket}/o":
            prefix = self.query.get("prefix", "")
            names = sorted((n for n in store.live if n.startswith(prefix)), key=str.encode)
            self._json({"items": [store.live[name].shown() for name in names]})
            return
        found = store.find(self._name(), self.query)
        if self.query.get("alt") != "media":
            self._json(found.shown())
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, found.data)
            return
        start, end = int(asked[1]), int(asked[2] or len(found.data) - 1)
        if start >= len(found.data):
            raise _RefusedError(416, "The range is not satisfiable.")
        part = found.data[start : end + 1]
        shown = f"bytes {start}-{start + len(part) - 1}/{len(found.data)}"
        self._send(206, part, {"Content-Range": shown})

    def _post(self) -> None:
        store, kind = self.server.store, self.query.get("uploadType")
        if self.path != f"/upload/storage/v1/b/{store.bucket}/o":
            raise _RefusedError(404, "The specified bucket does not exist.")
        if kind == "resumable":
            said = json.loads(self.body)
            said.setdefault("contentType", self.headers.get("X-Upload-Content-Type"))
            session = str(len(store.sessions))
            store.sessions[session] = (said, self.query, bytearray())
            place = f"http://{self.headers['Host']}/upload?upload_id={session}"
            self._send(200, b"", {"Location": place})
            return
        assert kind == "multipart"
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
        assert boundary is not None
        delimiter = b"--" + boundary[1].encode()
        _, described, media, _ = self.body.split(delimiter, 3)
        said = json.loads(described.partition(b"\r\n\r\n")[2])
        data = media.partition(b"\r\n\r\n")[2][:-2]
        self._json(store.insert(said, data, self.query).shown())

    def _put(self) -> None:
        store = self.server.store
        said, query, data = store.sessions[self.query["upload_id"]]
        data += self.body
        if self.headers["Content-Range"].endswith("/*"):
            self._send(308, b"", {"Range": f"bytes=0-{len(data) - 1}"} if data else {})
            return
        self._json(store.insert(said, bytes(data), query).shown())

    def _delete(self) -> None:
        store = self.server.store
        if "upload_id" in self.query:
            self._send(499, b"")
            return
        with store.lock:
            name = self._name()
            store.find(name, {})
            store.check(name, self.query)
            del store.live[name]
        self._send(204, b"")

    def _name(self) -> str:
        found = re.fullmatch(
            rf"(?:/download)?/storage/v1/b/{self.server.store.bucket}/o/([^/]+)", self.path
        )
        if found is None:
            raise _RefusedError(404, "No such path.")
        return unquote(found[1])

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(fields or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bucket: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = _Store(bucket)


@contextmanager
def cloud_storage(bucket: str = BUCKET) -> Iterator[storage.Bucket]:
    """An empty bucket of the real client, at a server of its own."""
    server = _Server(bucket)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": f"http://127.0.0.1:{server.server_port}"},
        )
        yield client.bucket(bucket)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
