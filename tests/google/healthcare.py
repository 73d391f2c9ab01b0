"""A strict DICOM store of the Cloud Healthcare API: DICOMweb with Google's rules.

The rules are those of Google's conformance statement (April 2026) and of what its users report;
where these leave it open, the stricter reading is taken, so that a client that passes here asks for
nothing that Google may refuse. Nothing is transcoded: a client that does not ask for
`transfer-syntax=*` gets a 406 where Google would have decompressed the Instance for it.

    with healthcare() as store:
        store.dicomweb_url   # base URL of its DICOMweb services
        store.put(part10)    # as if somebody else had stored it
        store.tokens = {"t"} # from now on a bearer token is asked for
        store.answer_next(503, {"Retry-After": "1"})

`on_change(action, path)` is called after each store and delete, as notifications would be.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pydicom
from pydicom.errors import InvalidDicomError

from tests.google.serving import LoopbackServer, serving

STORE = "projects/p/locations/europe-west3/datasets/d/dicomStores/s"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

_DETAIL, _DETAIL_JSON = "00090097", "00091097"
_PROCESSING_FAILURE = 272
_LARGEST_OTHER_REQUEST = 10 << 20
_KEYS = {
    "studies": (
        "StudyInstanceUID",
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDate",
    ),
    "series": ("SeriesInstanceUID", "Modality"),
    "instances": ("SOPInstanceUID",),
}
_LIMITS = {"studies": (100, 5000), "series": (100, 5000), "instances": (1000, 50_000)}
_SET_CLASS = ":setBlobStorageSettings"
_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
_MOST_OFFSET = 1_000_000
_BOTH_LEVELS = ("studies", "series", "instances")


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    size: int


@dataclass
class _Stored:
    part10: bytes
    data: pydicom.Dataset

    @property
    def uids(self) -> tuple[str, str, str]:
        data = self.data
        return data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID

    @property
    def transfer_syntax_uid(self) -> str:
        return str(self.data.file_meta.TransferSyntaxUID)


class _RefusedError(Exception):
    def __init__(self, status: int, words: str = "") -> None:
        super().__init__(words)
        self.status = status


@dataclass
class HealthcareStore:
    """The store, seen from behind."""

    url: str = ""
    name: str = STORE
    # What is answered for a resource that is not there: the statement lists no 404.
    missing: int = 404
    tokens: set[str] = field(default_factory=set)
    # Of SOP Instance UIDs whose storage class was set.
    classes: dict[str, str] = field(default_factory=dict)
    requests: list[Received] = field(default_factory=list)
    on_change: Callable[[str, str], None] = lambda action, path: None
    _stored: dict[tuple[str, str, str], _Stored] = field(default_factory=dict)
    _next: deque[tuple[int, Mapping[str, str]]] = field(default_factory=deque)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def dicomweb_url(self) -> str:
        """Base URL of its DICOMweb services, no slash at its end."""
        return f"{self.url}/v1/{self.name}/dicomWeb"

    def answer_next(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer one of the next requests with an error, after reading it."""
        self._next.append((status, headers or {}))

    def put(self, part10: bytes) -> str:
        """Store an Instance past all rules; its path, as notifications name it."""
        stored = _Stored(part10, pydicom.dcmread(io.BytesIO(part10)))
        with self._lock:
            self._stored[stored.uids] = stored
        path = self.path_of(*stored.uids)
        self.on_change("StoreInstances", path)
        return path

    def path_of(self, study: str, series: str, instance: str) -> str:
        """The resource name of an Instance."""
        return f"{self.name}/dicomWeb/studies/{study}/series/{series}/instances/{instance}"

    def get(self, sop_instance_uid: str) -> bytes | None:
        """The Part 10 bytes of an Instance; None if it is not there."""
        with self._lock:
            found = (s for uids, s in self._stored.items() if uids[2] == sop_instance_uid)
            return next((stored.part10 for stored in found), None)

    def __len__(self) -> int:
        return len(self._stored)

    # ---- STOW-RS

    def _store(self, parts: list[bytes], study: str | None) -> tuple[int, dict[str, Any]]:
        stored: list[Any] = []
        failed: list[Any] = []
        for part10 in parts:
            try:
                self._store_one(part10, study)
                uids = pydicom.dcmread(io.BytesIO(part10), stop_before_pixels=True)
                stored.append(_item(uids))
            except _RefusedError as error:
                failed.append(_failed_item(part10, str(error)))
        answer: dict[str, Any] = {}
        if stored:
            answer["00081199"] = {"vr": "SQ", "Value": stored}
        if failed:
            answer["00081198"] = {"vr": "SQ", "Value": failed}
        return 409 if failed else 200, answer

    def _store_one(self, part10: bytes, study: str | None) -> None:
        try:
            data = pydicom.dcmread(io.BytesIO(part10))
            instance = _Stored(part10, data)
            uids = instance.uids
        except (InvalidDicomError, AttributeError, EOFError) as error:
            raise _RefusedError(409, "invalid DICOM: cannot parse") from error
        if study is not None and study != uids[0]:
            raise _RefusedError(409, "study in path does not match Study Instance UID")
        with self._lock:
            known = self._stored.get(uids)
            if known is None:
                self._stored[uids] = instance
            elif known.part10 != part10:
                raise _RefusedError(
                    409,
                    "An instance already exists in this DICOM Store with the same "
                    "Study/Series/SOPInstance UID, but the DICOM files differ (checksum mismatch).",
                )
        if known is None:
            self.on_change("StoreInstances", self.path_of(*uids))

    # ---- QIDO-RS

    def _search(self, level: str, within: dict[str, str], query: list[tuple[str, str]]) -> Any:
        keys = [key for one in _BOTH_LEVELS[: _BOTH_LEVELS.index(level) + 1] for key in _KEYS[one]]
        default, most = _LIMITS[level]
        limit, offset, claims, is_fuzzy = default, 0, dict(within), False
        for name, value in query:
            if name == "limit":
                limit = _count(value, most)
            elif name == "offset":
                offset = _count(value, _MOST_OFFSET)
            elif name == "includefield":
                continue
            elif name == "fuzzymatching":
                is_fuzzy = value == "true"
            else:
                keyword = _keyword(name)
                if keyword not in keys:
                    raise _RefusedError(400, f"{name} is not searchable")
                if "*" in value or "?" in value:
                    raise _RefusedError(400, "wildcards are not supported")
                claims[keyword] = value
        name = claims.pop("PatientName", "") if is_fuzzy else ""
        with self._lock:
            fitting = [
                s
                for _, s in sorted(self._stored.items())
                if _fits(s.data, claims) and _is_like(str(s.data.get("PatientName")), name)
            ]
        depth = _BOTH_LEVELS.index(level) + 1
        shown = {stored.uids[:depth]: stored for stored in fitting}
        page = list(shown.values())[offset : offset + limit]
        wanted = ["SOPClassUID", *keys]
        return [{k: v for kw in wanted for k, v in _shown(s.data, kw).items()} for s in page]

    # ---- delete

    def _delete(self, within: tuple[str, ...]) -> dict[str, Any]:
        with self._lock:
            gone = [uids for uids in self._stored if uids[: len(within)] == within]
            if not gone:
                raise _RefusedError(self.missing, "not found")
            for uids in gone:
                del self._stored[uids]
        for uids in gone:
            self.on_change("DeleteInstances", self.path_of(*uids))
        # A Study or Series goes by a long-running operation.
        return {} if len(within) == 3 else {"name": f"{self.name}/operations/1"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _respond(self) -> None:
        body = self._body()
        store = self.store = self.server.store_of(self.path)
        store.requests.append(Received(self.command, self.path, dict(self.headers), len(body)))
        if store._next:
            status, headers = store._next.popleft()
            self._send(status, b'{"error": {"message": "try later"}}', "application/json", headers)
            return
        try:
            self._authorize()
            self._answer(body)
        except _RefusedError as error:
            words = {"error": {"code": error.status, "message": str(error)}}
            self._send(error.status, json.dumps(words).encode(), "application/json")

    do_GET = do_POST = do_DELETE = _respond

    def _authorize(self) -> None:
        tokens = self.store.tokens
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if tokens and (scheme != "Bearer" or token not in tokens):
            raise _RefusedError(401, "Request had invalid authentication credentials.")

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        prefix = f"/v1/{self.store.name}/dicomWeb/"
        if not parts.path.startswith(prefix):
            raise _RefusedError(403, "no such store, or no permission")
        words = parts.path.removeprefix(prefix).split("/")
        query = parse_qsl(parts.query, keep_blank_values=True)
        if self.command != "POST" and len(body) > _LARGEST_OTHER_REQUEST:
            raise _RefusedError(413, "larger than 10 MB")
        match self.command, words:
            case "POST", ["studies"]:
                self._stow(body, None)
            case "POST", ["studies", study]:
                self._stow(body, study)
            case "GET", ["studies" | "series" | "instances" as level]:
                self._found(level, {}, query)
            case "GET", ["studies", study, "series" | "instances" as level]:
                self._found(level, {"StudyInstanceUID": study}, query)
            case "GET", ["studies", study, "series", series, "instances"]:
                within = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
                self._found("instances", within, query)
            case "GET", ["studies", study, "series", series, "instances", instance]:
                self._retrieve((study, series, instance))
            case "POST", [*_, last] if last.endswith(_SET_CLASS):
                self._set_class(words, body)
            case "DELETE", ["studies", study]:
                self._json(self.store._delete((study,)))
            case "DELETE", ["studies", study, "series", series]:
                self._json(self.store._delete((study, series)))
            case "DELETE", ["studies", study, "series", series, "instances", instance]:
                self._json(self.store._delete((study, series, instance)))
            case _:
                raise _RefusedError(404, "no such service")

    def _set_class(self, words: list[str], body: bytes) -> None:
        uids = tuple([*words[:-1], words[-1].removesuffix(_SET_CLASS)][1::2])
        wanted = json.loads(body)["blobStorageSettings"]["blobStorageClass"]
        if wanted not in _CLASSES:
            raise _RefusedError(400, "no such storage class")
        found = [one for one in self.store._stored if one[: len(uids)] == uids]
        if not found:
            raise _RefusedError(self.store.missing, "no such resource")
        self.store.classes.update({instance: wanted for _, _, instance in found})
        self._json({})

    def _stow(self, body: bytes, study: str | None) -> None:
        kind = self.headers.get("Content-Type", "")
        if not body:
            raise _RefusedError(400, "the request is empty")
        if kind.split(";")[0].strip() == "application/dicom":
            instances = [body]
        else:
            instances = list(_parts(kind, body))
        if not instances:
            raise _RefusedError(400, "no parts")
        status, module = self.store._store(instances, study)
        if "application/dicom+json" in self.headers.get("Accept", ""):
            self._send(status, json.dumps(module).encode(), "application/dicom+json")
        else:
            self._send(status, _xml(module), "application/dicom+xml")

    def _found(self, level: str, within: dict[str, str], query: list[tuple[str, str]]) -> None:
        self._json(self.store._search(level, within, query), "application/dicom+json")

    def _retrieve(self, uids: tuple[str, str, str]) -> None:
        with self.store._lock:
            found = self.store._stored.get(uids)
        if found is None:
            raise _RefusedError(self.store.missing, "not found")
        accept = self.headers.get("Accept", "")
        asks_for_any = re.search(r"transfer-syntax=\"?\*", accept) is not None
        if not asks_for_any and found.transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN:
            raise _RefusedError(406, "this would be transcoded to Explicit VR Little Endian")
        if accept.startswith("application/dicom") and not accept.startswith("application/dicom+"):
            self._send(200, found.part10, "application/dicom")
            return
        if "multipart/related" not in accept:
            raise _RefusedError(406, "nothing that is accepted")
        head = b"--bound\r\nContent-Type: application/dicom\r\n\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=bound'
        self._send(200, head + found.part10 + b"\r\n--bound--\r\n", kind)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, value: Any, kind: str = "application/json") -> None:
        self._send(200, json.dumps(value).encode(), kind)

    def _send(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(LoopbackServer):
    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(_Handler)
        self.stores = {name: HealthcareStore(url=self.url, name=name) for name in names}

    def store_of(self, path: str) -> HealthcareStore:
        """The one that a path names; the first, which then refuses it, if it names none."""
        named = (s for name, s in self.stores.items() if path.startswith(f"/v1/{name}/"))
        return next(named, next(iter(self.stores.values())))


@contextmanager
def healthcare_stores(*names: str) -> Iterator[Mapping[str, HealthcareStore]]:
    """Empty stores on one loopback port, by name."""
    server = _Server(names)
    with serving(server):
        yield server.stores


@contextmanager
def healthcare() -> Iterator[HealthcareStore]:
    """One empty store on a loopback port."""
    with healthcare_stores(STORE) as stores:
        yield stores[STORE]


def _parts(kind: str, body: bytes) -> Iterator[bytes]:
    found = re.search(r'boundary="?([^";]+)', kind)
    if not kind.startswith("multipart/related") or found is None:
        raise _RefusedError(415, "neither multipart/related nor application/dicom")
    delimiter = b"--" + found[1].encode()
    if delimiter + b"--" not in body:
        raise _RefusedError(400, "the multipart body does not end")
    for part in body.split(delimiter)[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        if b"application/dicom" not in head:
            raise _RefusedError(415, "a part is not application/dicom")
        yield data.removesuffix(b"\r\n")


def _item(data: pydicom.Dataset) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [str(data.SOPClassUID)]},
        "00081155": {"vr": "UI", "Value": [str(data.SOPInstanceUID)]},
    }


def _failed_item(part10: bytes, words: str) -> dict[str, Any]:
    item: dict[str, Any] = {"00081197": {"vr": "US", "Value": [_PROCESSING_FAILURE]}}
    try:
        item |= _item(pydicom.dcmread(io.BytesIO(part10), stop_before_pixels=True))
    except (InvalidDicomError, AttributeError, EOFError):
        words = f"{words} "
    item[_DETAIL] = {"vr": "LT", "Value": [words]}
    item[_DETAIL_JSON] = {"vr": "LT", "Value": [json.dumps({"message": words})]}
    return item


def _xml(module: Mapping[str, Any]) -> bytes:
    def attribute(tag: str, one: Mapping[str, Any]) -> str:
        inner = "".join(
            f'<Item number="{n}">{attributes(value)}</Item>'
            if isinstance(value, Mapping)
            else f'<Value number="{n}">{value}</Value>'
            for n, value in enumerate(one["Value"], 1)
        )
        return f'<DicomAttribute tag="{tag}" vr="{one["vr"]}">{inner}</DicomAttribute>'

    def attributes(item: Mapping[str, Any]) -> str:
        return "".join(attribute(tag, one) for tag, one in item.items())

    return f"<NativeDicomModel>{attributes(module)}</NativeDicomModel>".encode()


def _count(text: str, most: int) -> int:
    if not text.isdigit() or int(text) > most:
        raise _RefusedError(400, f"not a number up to {most}")
    return int(text)


def _keyword(name: str) -> str:
    if re.fullmatch("[0-9A-Fa-f]{8}", name):
        return pydicom.datadict.keyword_for_tag(int(name, 16))
    return name


def _is_like(name: str, asked: str) -> bool:
    """Each word that is asked for begins a word of the name, whatever their order and case."""
    words = name.lower().replace("^", " ").split()
    return all(
        any(word.startswith(wanted) for word in words)
        for wanted in asked.lower().replace("^", " ").split()
    )


def _fits(data: pydicom.Dataset, claims: Mapping[str, str]) -> bool:
    for keyword, wanted in claims.items():
        found = str(data.get(keyword, ""))
        if keyword == "StudyDate" and "-" in wanted:
            first, _, last = wanted.partition("-")
            if not found or found < first or (last and found > last):
                return False
        elif found != wanted:
            return False
    return True


def _shown(data: pydicom.Dataset, keyword: str) -> dict[str, Any]:
    if keyword not in data:
        return {}
    element = data[keyword]
    value: Any = str(element.value)
    if element.VR == "PN":
        value = {"Alphabetic": value}
    return {f"{element.tag:08X}": {"vr": element.VR, "Value": [value]}}
