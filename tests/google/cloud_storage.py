"""A small Cloud Storage that honours every precondition, for the real client.

The emulators that can be had ignore preconditions on resumable uploads or altogether, which is the
one promise that we lean on. This one speaks the part of the JSON API that our adapter uses, with
object versioning on, and keeps all in memory.

Several may use it at a time: requests below `/as/NAME` are those of NAME (`Server.url_as`), and
`Server.on_request` is told of each, by the class that Cloud Storage counts it in.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google.cloud.storage as storage
import google_crc32c
from google.auth.credentials import AnonymousCredentials

from tests.google.serving import LoopbackServer, serving

BUCKET = "received"
_PIECE_BYTES = 256 << 10


@dataclass
class _Object:
    name: str
    generation: int
    data: bytes
    said: dict[str, Any]
    bucket: str
    created_at: str = "2026-11-21T10:00:00Z"

    def shown(self) -> dict[str, Any]:
        sum_ = google_crc32c.value(self.data).to_bytes(4, "big")
        told: dict[str, Any] = {
            key: self.said[key]
            for key in ("metadata", "contentType", "storageClass")
            if key in self.said
        }
        return {
            **told,
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": self.name,
            "generation": str(self.generation),
            "metageneration": "1",
            "timeCreated": self.created_at,
            "size": str(len(self.data)),
            "crc32c": base64.b64encode(sum_).decode(),
        }


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Objects:
    """Those of one bucket: live ones by name, every generation by name and number."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        # Called with each object that is finished, as notifications would be.
        self.on_finalized: Callable[[dict[str, Any]], None] = lambda shown: None
        self.lock = threading.Lock()
        self.live: dict[str, _Object] = {}
        self.generations: dict[tuple[str, int], _Object] = {}
        self.finished: dict[str, _Object] = {}
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
        self.on_finalized(made.shown())
        return made

    def put(self, name: str, data: bytes) -> None:
        """As if somebody else had uploaded it."""
        self.insert({"name": name}, data, {})

    def all(self) -> dict[str, bytes]:
        """The live objects by their names."""
        with self.lock:
            return {name: one.data for name, one in sorted(self.live.items())}

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
    server: Server

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
        named = re.fullmatch("/as/([^/]+)(/.*)", parts.path)
        self.caller, self.path = (named[1], named[2]) if named else ("", parts.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        try:
            answer()
        except _RefusedError as error:
            said = {"error": {"code": error.status, "message": str(error)}}
            self._send(error.status, json.dumps(said).encode())

    def _get(self) -> None:
        bucket, name = self._place("(?:/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?")
        store = self._objects(bucket)
        self._count("class_b" if name else "list", bucket)
        if not name:
            prefix = self.query.get("prefix", "")
            names = sorted((n for n in store.live if n.startswith(prefix)), key=str.encode)
            self._json({"items": [store.live[name].shown() for name in names]})
            return
        found = store.find(name, self.query)
        if self.query.get("alt") != "media":
            self._json(found.shown())
            return
        generation = {"X-Goog-Generation": str(found.generation)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, found.data, generation)
            return
        start, end = int(asked[1]), int(asked[2] or len(found.data) - 1)
        if start >= len(found.data):
            raise _RefusedError(416, "The range is not satisfiable.")
        part = found.data[start : end + 1]
        shown = f"bytes {start}-{start + len(part) - 1}/{len(found.data)}"
        self._send(206, part, {"Content-Range": shown, **generation})

    def _post(self) -> None:
        bucket, _ = self._place("/upload/storage/v1/b/([^/]+)/o()")
        store, kind = self._objects(bucket), self.query.get("uploadType")
        # The pieces of a resumable upload are counted with the request that begins it.
        self._count("class_a", bucket)
        if kind == "resumable":
            said = json.loads(self.body)
            said.setdefault("contentType", self.headers.get("X-Upload-Content-Type"))
            session = f"{bucket}/{len(store.sessions)}"
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
        store = self._objects(self.query["upload_id"].partition("/")[0])
        session = self.query["upload_id"]
        said, query, data = store.sessions[session]
        if session in store.finished:
            self._json(store.finished[session].shown())
            return
        sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
        assert sent is not None
        if sent[1] is not None:
            data += self.body[max(0, len(data) - int(sent[1])) :]
        if sent[2] == "*" or len(data) < int(sent[2]):
            # What a connection that broke has brought counts in whole pieces.
            del data[len(data) // _PIECE_BYTES * _PIECE_BYTES :]
            self._send(308, b"", {"Range": f"bytes=0-{len(data) - 1}"} if data else {})
            return
        store.finished[session] = store.insert(said, bytes(data), query)
        self._json(store.finished[session].shown())

    def _delete(self) -> None:
        if "upload_id" in self.query:
            self._send(499, b"")
            return
        bucket, name = self._place("/storage/v1/b/([^/]+)/o/([^/]+)")
        store = self._objects(bucket)
        with store.lock:
            store.find(name, {})
            store.check(name, self.query)
            del store.live[name]
        self._send(204, b"")

    def _place(self, pattern: str) -> tuple[str, str]:
        """Bucket and object that the path names."""
        found = re.fullmatch(pattern, self.path)
        if found is None:
            raise _RefusedError(404, "No such path.")
        return unquote(found[1]), unquote(found[2] or "")

    def _objects(self, bucket: str) -> Objects:
        found = self.server.buckets.get(bucket)
        if found is None:
            raise _RefusedError(404, "The specified bucket does not exist.")
        return found

    def _count(self, kind: str, bucket: str) -> None:
        self.server.on_request(self.caller, kind, bucket)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(fields or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(LoopbackServer):
    """Cloud Storage, seen from behind."""

    def __init__(self, *buckets: str) -> None:
        super().__init__(_Handler)
        self.buckets = {name: Objects(name) for name in buckets}
        # Who asks, for what (class_a, class_b, list), in which bucket.
        self.on_request: Callable[[str, str, str], None] = lambda caller, kind, bucket: None

    def url_as(self, caller: str) -> str:
        """Its address for one of those who use it."""
        return f"{self.url}/as/{caller}"


@contextmanager
def storage_server(*buckets: str) -> Iterator[Server]:
    """Empty buckets, on a loopback port."""
    server = Server(*buckets)
    with serving(server):
        yield server


@contextmanager
def cloud_storage(bucket: str = BUCKET) -> Iterator[storage.Bucket]:
    """An empty bucket of the real client, at a server of its own."""
    with storage_server(bucket) as server:
        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": server.url},
        )
        yield client.bucket(bucket)
