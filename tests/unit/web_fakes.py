"""Doubles for the HTTP side: a reception that keeps what it is given, and the ports around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pydicom
from flask.testing import FlaskClient
from pydicom.data import get_testdata_file

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.config.entities import Settings
from shared.errors import (
    AxiomError,
    InstanceTooLargeError,
    NotDicomError,
    PermanentError,
    SopInstanceMismatchError,
)
from shared.identity.settings import IdentitySettings
from shared.messages import Receipt, ReceivedFile, Source
from shared.ports import Buffer
from shared.web.wsgi import create_app
from tests.fakes import FakeClock

KEY = "letmein"
AUTHORIZED = {"Authorization": f"Api-Key {KEY}"}
STUDIES = "/api/v1/dicomweb/studies"


class FakeHeader:
    """Answers `text` as Header does."""

    def __init__(self, dataset: pydicom.Dataset) -> None:
        self._dataset = dataset

    def text(self, name: str) -> str:
        return str(self._dataset.get(name, ""))


@dataclass
class FakeReception:
    """Keeps what was committed and refused; `begin_error` is raised by `begin`."""

    max_bytes: int = 1 << 30
    max_request_bytes: int = 1 << 40
    committed: list[bytes] = field(default_factory=list)
    refused: list[AxiomError] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    open_stagings: int = 0
    begin_error: AxiomError | None = None
    commit_error: AxiomError | None = None

    def begin(self, source: Source, *, goes_on: bool = False) -> FakeStaging:
        if self.begin_error is not None:
            raise self.begin_error
        self.sources.append(source)
        return FakeStaging(self)


class FakeStaging:
    """One Instance in memory, checked with pydicom."""

    header: Any = None

    def __init__(self, reception: FakeReception) -> None:
        self._reception = reception
        self._data = bytearray()

    def write(self, *buffers: Buffer) -> None:
        for buffer in buffers:
            self._data += buffer
        if len(self._data) > self._reception.max_bytes:
            raise InstanceTooLargeError(self._reception.max_bytes)

    def commit(self, *, study_instance_uid: str | None = None) -> Receipt:
        if self._reception.commit_error is not None:
            raise self._reception.commit_error
        try:
            dataset = self._read(study_instance_uid)
        except PermanentError as error:
            self.refuse(error)
            raise
        self._reception.committed.append(bytes(self._data))
        return Receipt(
            receipt_id="r",
            trace_id="t",
            received_at=datetime(2026, 11, 21, tzinfo=UTC),
            source=self._reception.sources[-1],
            file=ReceivedFile("received/r.dcm", len(self._data), 0, 0),
            sop_class_uid=dataset.SOPClassUID,
            sop_instance_uid=dataset.SOPInstanceUID,
            study_instance_uid=dataset.StudyInstanceUID,
            series_instance_uid=dataset.SeriesInstanceUID,
            transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
            header=None,
        )

    def refuse(self, error: AxiomError) -> None:
        self._reception.refused.append(error)

    def _read(self, study_instance_uid: str | None) -> pydicom.Dataset:
        if self._data[128:132] != b"DICM":
            raise NotDicomError('no "DICM"')
        dataset = pydicom.dcmread(BytesIO(self._data), stop_before_pixels=True)
        self.header = FakeHeader(dataset)
        found = dataset.StudyInstanceUID
        if study_instance_uid is not None and study_instance_uid != found:
            raise SopInstanceMismatchError("StudyInstanceUID", study_instance_uid, found)
        return dataset

    def __enter__(self) -> Self:
        self._reception.open_stagings += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._reception.open_stagings -= 1


def fake_ports(home: Path, reception: FakeReception, **others: Any) -> Any:
    """What `create_app` needs of Ports."""
    settings = Settings(
        max_instance_bytes=reception.max_bytes, max_request_bytes=reception.max_request_bytes
    )
    configuration = SimpleNamespace(get=lambda: SimpleNamespace(settings=settings))
    parts = {
        "documents": SqliteDocumentStore(home / "documents.db"),
        "secrets": FileSecretStore(home / "secrets"),
        "clock": FakeClock(),
        "configuration": configuration,
        "receiver": reception,
        "crosswalks": None,
        "exceptions": None,
        "objects": FolderObjectStore(home / "objects"),
        "queue": None,
        "health_checks": {},
    }
    return SimpleNamespace(**{**parts, **others})


def client_over(ports: Any) -> FlaskClient:
    """A client of the whole application, `KEY` its admin key."""
    return create_app(ports, IdentitySettings(preset_key=KEY)).test_client()


def part10(name: str = "CT_small.dcm") -> bytes:
    """The bytes of a file of the pydicom wheel."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def related(*parts: bytes, boundary: str = "B", header: str = "application/dicom") -> bytes:
    """A multipart/related body."""
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {header}\r\n\r\n".encode() + part + b"\r\n"
        for part in parts
    )
    return body + f"--{boundary}--\r\n".encode()
