"""DICOM nodes that others wrote, both ways: dcmjs-dimse (Node.js) and pynetdicom's own apps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from scp_gateway.gateway import Gateway
from shared.adapters.destinations import create
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.sources.dimse import DimseReader
from shared.config.entities import Configuration, DimseDestination
from shared.config.sources import DimseQrSource
from shared.identity.callers import Callers
from shared.identity.identity import Identity
from shared.ports import FoundStudy, Retrieval
from tests.conftest import ROOT
from tests.data import build
from tests.end_to_end.test_query_retrieve import STUDY, at, in_front_of
from tests.end_to_end.test_query_retrieve import filled as filled_orthanc
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import MemoryReceiver, listener, running_gateway
from tests.peers import LOOPBACK, OrthancPeer, StartStorescp, _listens, _Peer, free_port
from tests.unit.destinations.received import outgoing

pytest_plugins = ("tests.peers",)

filled = filled_orthanc
MODULES = ROOT / ".tools" / "node" / "node_modules"
SCRIPTS = ROOT / "tests" / "node"
CT = "1.2.840.10008.5.1.4.1.1.2"
with_dcmjs = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "dcmjs-dimse").is_dir(),
    reason="dcmjs-dimse is not installed",
)
with_orthanc = pytest.mark.skipif(not OrthancPeer.is_installed(), reason="Orthanc is not installed")


def _node() -> dict[str, str]:
    return {**os.environ, "NODE_PATH": str(MODULES)}


def dcmjs(operation: str, port: int, **given: Any) -> list[dict[str, Any]]:
    """What dcmjs-dimse is answered."""
    done = subprocess.run(
        ["node", str(SCRIPTS / "scu.js"), operation, json.dumps({"port": port, **given})],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=_node(),
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def app(name: str, port: int, *options: str, cwd: Path) -> str:
    """What one of pynetdicom's own SCUs says; it has done what it should."""
    done = subprocess.run(
        [sys.executable, "-m", "pynetdicom", name, "-d", LOOPBACK, str(port), *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Dcmjs(_Peer):
    """dcmjs-dimse as a node that stores, finds, and sends by C-MOVE and C-GET."""

    program = "node"

    def __init__(self, folder: Path, **destinations: int) -> None:
        super().__init__(folder)
        self.port, self._destinations = 0, destinations

    def _command(self) -> tuple[list[str], dict[str, str]]:
        self.port = free_port()
        given = {"folder": str(self.folder), "destinations": self._destinations}
        return ["node", str(SCRIPTS / "scp.js"), str(self.port), json.dumps(given)], _node()

    def _is_ready(self) -> bool:
        return _listens(self.port)


class PynetdicomApp(_Peer):
    """One of pynetdicom's own SCPs."""

    program = sys.executable

    def __init__(self, folder: Path, name: str, **destinations: int) -> None:
        super().__init__(folder)
        self._name, self._destinations = name, destinations
        self.port = 0

    def _command(self) -> tuple[list[str], dict[str, str]]:
        self.port = free_port()
        command = [sys.executable, "-m", "pynetdicom", self._name]
        if self._name == "storescp":
            return [*command, str(self.port), "-od", str(self.folder)], dict(os.environ)
        configuration = self.folder.with_name(f"{self.folder.name}.ini")
        peers = "\n".join(
            f"[{title}]\naddress: {LOOPBACK}\nport: {port}"
            for title, port in self._destinations.items()
        )
        configuration.write_text(
            f"[DEFAULT]\nport: {self.port}\nae_title: QRSCP\nbind_address: {LOOPBACK}\n"
            f"max_pdu: 16382\nacse_timeout: 30\ndimse_timeout: 30\nnetwork_timeout: 30\n"
            f"instance_location: {self.folder}\n"
            f"database_location: {self.folder}.sqlite\n{peers}\n"
        )
        return [*command, "-c", str(configuration)], dict(os.environ)

    def _is_ready(self) -> bool:
        return _listens(self.port)


NAMES = ("first", "second", "third")


def files(folder: Path) -> list[Path]:
    """Three Instances of a Study."""
    folder.mkdir(exist_ok=True)
    made = []
    for name in NAMES:
        made.append(folder / f"{name}.dcm")
        made[-1].write_bytes(build.ct(instance=name, series="s1"))
    return made


def entities(port: int, **more: Any) -> tuple[DimseQrSource, DimseDestination]:
    place = {"host": LOOPBACK, "port": port, "ae_title": "QRSCP", "timeout_s": 60}
    document = {
        "sources": [{"name": "pacs", "type": "dimse_qr", **place, **more}],
        "destinations": [{"name": "pacs", "type": "dimse", **place}],
    }
    whole = Configuration.model_validate_json(json.dumps(document))
    source, destination = whole.sources[0], whole.destinations[0]
    assert isinstance(source, DimseQrSource)
    assert isinstance(destination, DimseDestination)
    return source, destination


def deliver(port: int, folder: Path) -> None:
    """Have our destination send three Instances there."""
    folder.mkdir()
    to = create(entities(port)[1], MemorySecrets())
    try:
        assert to.check() == "C-ECHO 0000H"
        for name in NAMES:
            sent = outgoing(folder, build.ct(instance=name, series="s1"))
            assert to.deliver(sent) == "0000H"
    finally:
        to.close()


def _nobody() -> Identity:
    raise AssertionError("no users of ours are asked for")


def uids(names: Sequence[str] = NAMES) -> set[str]:
    return {build.uid(name) for name in names}


def fetched(port: int, title: str) -> tuple[set[str], set[str]]:
    """The UIDs that come of a source there by C-GET, and those that it moves to our listener."""
    reader = DimseReader(entities(port)[0], FakeClock(), MemorySecrets())
    [study] = reader.search(None)
    listed = tuple(reader.instances(FoundStudy(study.uid)))
    wanted = Retrieval(study.uid, listed, is_whole=True)
    gotten = set()
    for one in reader.retrieve(wanted):
        gotten.add(_uid(b"".join(one.chunks)))
    source = entities(port, move_destination=title)[0]
    *_, last = DimseReader(source, FakeClock(), MemorySecrets()).move(wanted)
    assert (last.completed, last.failed) == (3, 0)
    return {one.uid for one in listed}, gotten


def _uid(part10: bytes) -> str:
    import io

    import pydicom

    return str(pydicom.dcmread(io.BytesIO(part10)).SOPInstanceUID)


@pytest.fixture
def receiving() -> Iterator[tuple[MemoryReceiver, int]]:
    receiver = MemoryReceiver()
    with running_gateway(receiver) as (_, port):
        yield receiver, port


class TestDcmjs:
    pytestmark = with_dcmjs

    def test_echoes_stores_and_says_who_it_is(
        self, receiving: tuple[MemoryReceiver, int], tmp_path: Path
    ) -> None:
        receiver, port = receiving
        assert dcmjs("echo", port) == [{"status": 0}]
        documents = SqliteDocumentStore(tmp_path / "documents.db")
        callers = Callers(_nobody, documents, MemorySecrets(passcode="it-is-me"), FakeClock())
        gateway = Gateway(receiver, callers=callers)
        gateway.apply([listener(user_identity={"passcodes": {"dcmjs": "passcode"}})])
        try:
            named = gateway.ports()["test"]
            shown = {"type": 2, "primaryField": "dcmjs", "positiveResponseRequested": True}
            right, wrong = ({**shown, "secondaryField": word} for word in ("it-is-me", "guess"))
            assert dcmjs("echo", named, userIdentity=right) == [{"status": 0}]
            assert "rejected" in dcmjs("echo", named, userIdentity=wrong)[0]
        finally:
            gateway.stop(0)
        sent = [str(path) for path in files(tmp_path / "sent")]
        assert dcmjs("store", port, files=sent) == [{"status": 0}] * 3
        assert {uid for one in receiver.committed for uid in one.uids[1:]} == uids()

    @with_orthanc
    def test_finds_moves_and_gets(
        self, filled: OrthancPeer, storescp: StartStorescp, tmp_path: Path
    ) -> None:
        scp = storescp()
        moves = {"STORESCP": {"host": LOOPBACK, "port": scp.port}}
        with in_front_of(at(filled.dicomweb_url), tmp_path, move_destinations=moves) as port:
            *found, last = dcmjs("find", port, keys={"PatientName": "JONES*"})
            assert last["status"] == 0
            assert sorted(one["dataset"]["StudyInstanceUID"] for one in found) == [
                STUDY.format(1),
                STUDY.format(2),
            ]
            *_, moved = dcmjs("move", port, to="STORESCP", study=STUDY.format(1))
            assert (moved["status"], moved["completed"]) == (0, 4)
            *gotten, last = dcmjs("get", port, study=STUDY.format(1))
            assert (last["status"], last["completed"]) == (0, 4)
        assert len(scp.files()) == 4
        assert len([one for one in gotten if "stored" in one]) == 4

    def test_is_a_destination_and_a_source(
        self, receiving: tuple[MemoryReceiver, int], tmp_path: Path
    ) -> None:
        receiver, port = receiving
        with Dcmjs(tmp_path / "dcmjs", AXIOM=port) as peer:
            deliver(peer.port, tmp_path / "objects")
            assert {path.stem for path in peer.folder.iterdir()} == uids()
            listed, gotten = fetched(peer.port, "AXIOM")
        assert listed == gotten == uids()
        assert {uid for one in receiver.committed for uid in one.uids[1:]} == uids()


class TestPynetdicomsApps:
    def test_echo_and_store(self, receiving: tuple[MemoryReceiver, int], tmp_path: Path) -> None:
        receiver, port = receiving
        assert "Status: 0x0000" in app("echoscu", port, cwd=tmp_path)
        files(tmp_path / "sent")
        app("storescu", port, str(tmp_path / "sent"), cwd=tmp_path)
        assert {uid for one in receiver.committed for uid in one.uids[1:]} == uids()

    @with_orthanc
    @pytest.mark.peer("orthanc")
    def test_find_move_and_get(
        self, filled: OrthancPeer, storescp: StartStorescp, tmp_path: Path
    ) -> None:
        scp = storescp()
        moves = {"STORESCP": {"host": LOOPBACK, "port": scp.port}}
        study = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY.format(1)}")
        with in_front_of(at(filled.dicomweb_url), tmp_path, move_destinations=moves) as port:
            said = app("findscu", port, "-S", *study, "-k", "PatientName=", cwd=tmp_path)
            assert "JONES^ANN" in said
            said = app("movescu", port, "-S", *study, "-aem", "STORESCP", cwd=tmp_path)
            assert "0x0000" in said
            folder = tmp_path / "gotten"
            folder.mkdir()
            app("getscu", port, "-S", *study, "-od", str(folder), cwd=tmp_path)
        assert len(scp.files()) == 4
        assert len(list(folder.iterdir())) == 4

    def test_storescp_is_a_destination(self, tmp_path: Path) -> None:
        with PynetdicomApp(tmp_path / "storescp", "storescp") as peer:
            deliver(peer.port, tmp_path / "objects")
            assert len(list(peer.folder.iterdir())) == 3

    def test_qrscp_is_a_destination_and_a_source(
        self, receiving: tuple[MemoryReceiver, int], tmp_path: Path
    ) -> None:
        receiver, port = receiving
        with PynetdicomApp(tmp_path / "qrscp", "qrscp", AXIOM=port) as peer:
            deliver(peer.port, tmp_path / "objects")
            listed, gotten = fetched(peer.port, "AXIOM")
        assert listed == gotten == uids()
        assert {uid for one in receiver.committed for uid in one.uids[1:]} == uids()
