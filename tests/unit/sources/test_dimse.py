"""Query/Retrieve SCPs as sources: dcmtk's, pynetdicom's, and those that misbehave."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    Verification,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from shared.adapters.sources.dimse import DimseReader
from shared.config.entities import Configuration
from shared.config.sources import DimseQrSource
from shared.errors import (
    SourceMisconfiguredError,
    SourceRefusedError,
    SourceUnavailableError,
)
from shared.pipeline.polling import Poller
from shared.pipeline.source_states import state_of
from shared.ports import FoundInstance, FoundStudy, Retrieval
from tests.data import build
from tests.embedded_system import System
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import running_gateway
from tests.peers import LOOPBACK, _Peer, free_port

STUDY, SERIES = build.uid("study"), build.uid("s1")


class Scp:
    """A Query/Retrieve SCP by pynetdicom; a test replaces what it does."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.queries: list[Dataset] = []
        self.destinations: dict[str, tuple[str, int]] = {}
        self.find: Callable[[Any], Any] = self.found
        self.move: Callable[[Any], Any] = self.moved
        self.get: Callable[[Any], Any] = self.gotten
        self.released = threading.Event()
        ae = AE("PACS")
        for service in (Verification, Find, Move, Get):
            ae.add_supported_context(service)
        ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        ae.add_requested_context(CTImageStorage)
        handlers: list[Any] = [
            (evt.EVT_C_FIND, lambda event: self.find(event)),
            (evt.EVT_C_MOVE, lambda event: self.move(event)),
            (evt.EVT_C_GET, lambda event: self.get(event)),
        ]
        server: Any = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.server, self.port = server, server.server_address[1]

    def put(self, *names: str) -> list[str]:
        for name in names:
            self.stored[build.uid(name)] = build.ct(instance=name, series="s1")
        return [build.uid(name) for name in names]

    def found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.queries.append(query)
        for uid in self.stored if query.QueryRetrieveLevel == "IMAGE" else (None,):
            one = Dataset()
            one.QueryRetrieveLevel = query.QueryRetrieveLevel
            one.StudyInstanceUID = STUDY
            if query.QueryRetrieveLevel == "STUDY":
                one.NumberOfStudyRelatedInstances = len(self.stored)
            else:
                one.SeriesInstanceUID = SERIES
            if uid:
                one.SOPInstanceUID, one.SOPClassUID = uid, CTImageStorage
            yield 0xFF00, one

    def asked(self, identifier: Dataset) -> list[Dataset]:
        wanted = identifier.get("SOPInstanceUID") or list(self.stored)
        uids = [wanted] if isinstance(wanted, str) else list(wanted)
        return [pydicom.dcmread(io.BytesIO(self.stored[str(uid)])) for uid in uids]

    def moved(self, event: Any) -> Iterator[Any]:
        yield self.destinations.get(event.move_destination.strip(), (None, None))
        found = self.asked(event.identifier)
        yield len(found)
        for one in found:
            yield 0xFF00, one

    def gotten(self, event: Any) -> Iterator[Any]:
        found = self.asked(event.identifier)
        yield len(found)
        for one in found:
            yield 0xFF00, one

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()


@pytest.fixture
def scp() -> Iterator[Scp]:
    scp = Scp()
    yield scp
    scp.close()


def answered(status: int, completed: int | None = None) -> Dataset:
    """A response to C-MOVE, with a number or without."""
    answer = Dataset()
    answer.Status = status
    if completed is not None:
        answer.NumberOfCompletedSuboperations = completed
    return answer


def entity(port: int, **more: Any) -> DimseQrSource:
    document = {
        "name": "pacs",
        "type": "dimse_qr",
        "ae_title": "PACS",
        "host": LOOPBACK,
        "port": port,
        "poll_interval": 60,
        "lookback": "30000d",
        **more,
    }
    whole = Configuration.model_validate_json(json.dumps({"sources": [document]}))
    found = whole.sources[0]
    assert isinstance(found, DimseQrSource)
    return found


def reader(port: int, **more: Any) -> DimseReader:
    return DimseReader(entity(port, **more), FakeClock(), MemorySecrets())


class Polled:
    """A system that polls an SCP, with a gateway that works off what comes."""

    def __init__(self, home: Path, source: DimseQrSource) -> None:
        self.system = System(home)
        document = source.model_dump(mode="json", exclude_unset=True)
        self.system.ports.configuration.apply({"sources": [document]}, by="test")
        self.poller = Poller(self.system.ports)

    def poll(self) -> Mapping[str, Any]:
        """Poll, and have what arrives decided about meanwhile."""
        runs = threading.Thread(target=self.poller.run)
        runs.start()
        tick = threading.Event()
        while runs.is_alive():
            self.system.work()
            tick.wait(0.05)
        self.system.work()
        self.system.clock.advance(60)
        return state_of("pacs", self.system.ports)

    def sources(self) -> list[tuple[str, str]]:
        page = self.system.ports.documents.query("instances", limit=500)
        return [(one.data["source"]["type"], one.data["source"]["name"]) for one in page.documents]


class TestGood:
    def test_moved_instances_come_to_our_listener_and_count_for_the_source(
        self, scp: Scp, tmp_path: Path
    ) -> None:
        scp.put("a", "b", "c")
        polled = Polled(tmp_path / "home", entity(scp.port, move_destination="AXIOM"))
        with running_gateway(polled.system.ports.receiver) as (_, port):
            scp.destinations["AXIOM"] = (LOOPBACK, port)
            assert polled.poll()["totals"]["processed"] == 3
            scp.put("late")
            assert polled.poll()["totals"] == {
                "found": 4,
                "queued": 4,
                "processed": 4,
                "failed": 0,
            }
        assert polled.sources() == [("dimse_qr", "pacs")] * 4

    def test_gotten_instances_come_over_our_own_association(self, scp: Scp, tmp_path: Path) -> None:
        scp.put("a", "b")
        polled = Polled(tmp_path / "home", entity(scp.port))
        assert polled.poll()["totals"]["processed"] == 2
        scp.put("late")
        assert polled.poll()["totals"]["processed"] == 3
        assert polled.sources() == [("dimse_qr", "pacs")] * 3

    def test_what_is_configured_is_asked_for_at_its_level(self, scp: Scp) -> None:
        scp.put("a")
        params = {"StudyDate": "-1d", "ModalitiesInStudy": ["CT", "MR"], "Modality": "CT"}
        source = reader(scp.port, query_level="SERIES", query_params=params)
        [study] = source.search(None)
        assert study.series == (SERIES,)
        of_study, of_series = scp.queries
        assert of_study.StudyDate == "20261120-"
        assert list(of_study.ModalitiesInStudy) == ["CT", "MR"]
        assert (of_series.QueryRetrieveLevel, of_series.Modality) == ("SERIES", "CT")

    def test_image_level_brings_what_fits_itself(self, scp: Scp) -> None:
        uids = scp.put("a", "b")
        [study] = reader(scp.port, query_level="IMAGE").search(None)
        assert study.instances is not None
        assert [one.uid for one in study.instances] == uids

    def test_it_is_there(self, scp: Scp) -> None:
        assert reader(scp.port).check() == "C-ECHO 0000H"


class TestBad:
    def test_nobody_is_there(self) -> None:
        with pytest.raises(SourceUnavailableError, match="connection refused"):
            list(reader(free_port()).search(None))

    def test_it_does_not_know_where_to_send(self, scp: Scp) -> None:
        scp.put("a")
        source = reader(scp.port, move_destination="AXIOM")
        [study] = source.search(None)
        wanted = Retrieval(study.uid, tuple(source.instances(study)), is_whole=True)
        with pytest.raises(SourceMisconfiguredError, match="A801H: the peer does not know AXIOM"):
            list(source.move(wanted))

    @pytest.mark.parametrize(
        ("status", "error"),
        [(0xA700, SourceUnavailableError), (0xC001, SourceUnavailableError),
         (0xA900, SourceRefusedError), (0x0122, SourceRefusedError)],
    )  # fmt: skip
    def test_it_answers_with_a_failure(self, scp: Scp, status: int, error: type[Exception]) -> None:
        scp.find = lambda event: iter([(status, None)])
        with pytest.raises(error, match=f"C-FIND {status:04X}H"):
            list(reader(scp.port).search(None))

    def test_its_own_words_are_told(self, scp: Scp) -> None:
        answer = answered(0xC001)
        answer.ErrorComment = "the archive is\x1b[1m closed"
        scp.find = lambda event: iter([(answer, None)])
        with pytest.raises(
            SourceUnavailableError, match=r"C-FIND C001H: the archive is \[1m closed"
        ):
            list(reader(scp.port).search(None))

    def test_it_hangs(self, scp: Scp) -> None:
        def hang(event: Any) -> Iterator[Any]:
            scp.released.wait(30)
            yield 0x0000, None

        scp.find = hang
        with pytest.raises(SourceUnavailableError, match=r"no answer to C-FIND|no association"):
            list(reader(scp.port, timeout_s=0.5).search(None))
        scp.released.set()

    def test_it_ends_the_association_in_the_middle(self, scp: Scp) -> None:
        def abort(event: Any) -> Iterator[Any]:
            event.assoc.abort()
            yield 0xFF00, Dataset()

        scp.find = abort
        with pytest.raises(SourceUnavailableError, match="no answer to C-FIND"):
            list(reader(scp.port).search(None))

    def test_it_shows_uids_that_are_none(self, scp: Scp, caplog: pytest.LogCaptureFixture) -> None:
        def odd(event: Any) -> Iterator[Any]:
            one = Dataset()
            one.QueryRetrieveLevel = "STUDY"
            one.add_new(0x0020000D, "LO", "../../etc")
            yield 0xFF00, one

        scp.find = odd
        assert list(reader(scp.port).search(None)) == []
        assert "etc" not in caplog.text

    def test_it_says_that_it_sent_what_never_arrives(self, scp: Scp, tmp_path: Path) -> None:
        """Sent to a stranger's listener: the state says what to look at."""
        scp.put("a")
        source = entity(scp.port, move_destination="AXIOM", arrival_timeout_s=0.2)
        polled = Polled(tmp_path / "home", source)
        other = System(tmp_path / "other")
        with running_gateway(other.ports.receiver) as (_, port):
            scp.destinations["AXIOM"] = (LOOPBACK, port)
            state = polled.poll()
        assert state["state"] == "failing"
        assert "1 Instances were sent and 0 arrived" in state["last_error"]

    @pytest.mark.parametrize(
        ("last", "lost", "counted"),
        [
            ((0x0000, None), [], (3, 0)),
            ((0xB000, None), ["1.2"], (2, 1)),
            ((0x0000, 1), [], (1, 0)),
        ],
    )
    @pytest.mark.parametrize("is_whole", [True, False])
    def test_it_counts_nothing_in_its_last_response(
        self,
        last: tuple[int, int | None],
        lost: list[str],
        counted: tuple[int, int],
        is_whole: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Which it may (PS3.7 9.1.4.1): what it does not name as failed is on its way."""

        class Silent:
            def send_c_move(self, *_: object) -> Iterator[tuple[Dataset, Dataset | None]]:
                yield answered(0xFF00), None
                named = Dataset()
                named.FailedSOPInstanceUIDList = lost
                yield answered(*last), named if lost else None

        @contextmanager
        def associated(*_: object, **__: object) -> Iterator[Silent]:
            yield Silent()

        moving = reader(104, move_destination="AXIOM")
        monkeypatch.setattr(moving, "associated", associated)
        asked = tuple(FoundInstance(f"1.{n}", "1.9") for n in range(3))
        *_, progress = moving.move(Retrieval("1", asked, is_whole=is_whole))
        assert (progress.completed, progress.failed) == counted

    def test_it_gives_fewer_than_it_shows(self, scp: Scp, tmp_path: Path) -> None:
        scp.put("a", "b")
        whole = scp.asked
        scp.asked = lambda identifier: whole(identifier)[:1]  # type: ignore[method-assign]
        polled = Polled(tmp_path / "home", entity(scp.port))
        assert polled.poll()["totals"]["processed"] == 1
        scp.asked = whole  # type: ignore[method-assign]
        assert polled.poll()["totals"]["processed"] == 2

    def test_a_get_that_is_left_in_the_middle_ends(self, scp: Scp) -> None:
        scp.put("a", "b", "c")
        source = reader(scp.port)
        found = source.instances(FoundStudy(STUDY))
        given = source.retrieve(Retrieval(STUDY, tuple(found), is_whole=True))
        first = next(given)
        assert b"".join(map(bytes, first.chunks))[128:132] == b"DICM"
        given.close()  # type: ignore[attr-defined]


class _Dcmqrscp(_Peer):
    """dcmtk's Query/Retrieve SCP, which knows AXIOM at a port of ours."""

    program = "dcmqrscp"

    def __init__(self, folder: Path, axiom_port: int) -> None:
        super().__init__(folder)
        self.axiom_port = axiom_port
        self.port = 0

    def _command(self) -> tuple[list[str], dict[str, str]]:
        self.port = free_port()
        storage = self.folder / "DB"
        storage.mkdir(exist_ok=True)
        configuration = self.folder / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {self.port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
            f"HostTable BEGIN\naxiom = (AXIOM, localhost, {self.axiom_port})\nHostTable END\n"
            f"VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nPACS {storage} RW (200, 1024mb) ANY\nAETable END\n"
        )
        return [self.program, "-c", str(configuration)], {}

    def _is_ready(self) -> bool:
        from tests.peers import _listens

        return _listens(self.port)


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("service", ["move", "get"])
def test_dcmtk_gives_all_once(tmp_path: Path, service: str) -> None:
    if not _Dcmqrscp.is_installed() or shutil.which("storescu") is None:
        pytest.skip("dcmqrscp is not installed")
    files = tmp_path / "files"
    files.mkdir()
    for n in range(3):
        (files / f"{n}.dcm").write_bytes(build.ct(instance=f"i{n}"))
    # What the gateway takes goes to the system that is polled, which is made once ports are known.
    system = System(tmp_path / "listening")
    with (
        running_gateway(system.ports.receiver) as (_, port),
        _Dcmqrscp(tmp_path / "pacs", port) as peer,
    ):
        store = ["storescu", "-aec", "PACS", LOOPBACK, str(peer.port), *map(str, files.iterdir())]
        subprocess.run(store, check=True, capture_output=True, timeout=60)
        more = {"move_destination": "AXIOM"} if service == "move" else {}
        source = entity(peer.port, **more).model_dump(mode="json", exclude_unset=True)
        system.ports.configuration.apply({"sources": [source]}, by="test")
        polled = Polled.__new__(Polled)
        polled.system, polled.poller = system, Poller(system.ports)
        assert polled.poll()["totals"]["processed"] == 3
        assert polled.poll()["totals"]["processed"] == 3
    assert polled.sources() == [("dimse_qr", "pacs")] * 3
