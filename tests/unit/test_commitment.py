"""Storage commitment (PS3.4 Annex J), both ways, with pynetdicom and Orthanc as strangers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from scp_gateway.gateway import Gateway
from shared import crash_points
from shared.dicom.commitment import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    CommitmentReport,
    CommitmentRequest,
    Failure,
    MalformedCommitmentError,
    Reference,
)
from shared.errors import StorageUnavailableError
from shared.messages import Source, Topic
from shared.pipeline import rules
from shared.pipeline.instance_records import receipt_of
from shared.times import timestamp
from tests.associations import established
from tests.data import build
from tests.embedded_system import DAY, System
from tests.gateway import listener
from tests.peers import OrthancPeer, StartOrthanc, free_port
from tests.running import wait_until

pytest_plugins = ("tests.peers",)

CT = build.CT_IMAGE_STORAGE
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
_WITHIN_S = 120.0


class TestDataSets:
    REFERENCES = tuple(Reference(CT, f"1.2.{number}") for number in range(3))

    @pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
    def test_are_read_as_they_were_written(self, syntax: str) -> None:
        request = CommitmentRequest("1.2.3", self.REFERENCES)
        assert CommitmentRequest.parse(request.encode(syntax), syntax) == request
        report = CommitmentReport(
            "1.2.3", self.REFERENCES[:1], (Failure(self.REFERENCES[1], 0x0112),)
        )
        assert CommitmentReport.parse(report.encode(syntax), syntax) == report
        assert (report.event_type_id, CommitmentReport("1.2").event_type_id) == (2, 1)

    @pytest.mark.parametrize(
        "data", [b"", b"\0" * 7, b"\xff" * 64, b"\x08\0\x95\x11\xff\xff\xff\xff1.2.3"]
    )
    def test_that_are_none_are_refused(self, data: bytes) -> None:
        for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
            with pytest.raises(MalformedCommitmentError):
                CommitmentRequest.parse(data, syntax)
            with pytest.raises(MalformedCommitmentError):
                CommitmentReport.parse(data, syntax)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "home")
    yield system
    system.ports.destinations.close()


@contextmanager
def gateway(system: System, **settings: Any) -> Iterator[int]:
    """The system's gateway on a free port."""
    gateway = Gateway(system.ports.receiver, system.ports.commitments)
    assert gateway.apply([listener(**settings)]) == {}
    try:
        yield gateway.ports()["test"]
    finally:
        gateway.stop(0)


class Scu:
    """pynetdicom, as it sends Instances and asks for their commitment."""

    def __init__(self, port: int, ae_title: str = "CT1") -> None:
        self.reports: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        self.ae = AE(ae_title)
        self.ae.add_requested_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
        self.ae.add_requested_context(StorageCommitmentPushModel)
        self._port = port

    def _take(self, event: Any) -> tuple[int, None]:
        self.reports.put((event.event_type, event.event_information))
        return 0x0000, None

    @contextmanager
    def association(self) -> Iterator[Association]:
        """Reports are there once they are answered: a release before that ends pynetdicom."""
        taken: queue.Queue[tuple[int, Dataset]] = queue.Queue()

        def take(event: Any) -> tuple[int, None]:
            taken.put((event.event_type, event.event_information))
            return 0x0000, None

        def pass_on(event: Any) -> None:
            if isinstance(event.pdu, P_DATA_TF):
                with suppress(queue.Empty):
                    self.reports.put(taken.get_nowait())

        association = established(
            self.ae,
            self._port,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_PDU_SENT, pass_on)],
        )
        yield association
        association.release()
        association.join(_WITHIN_S)

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Listen for reports on associations that the SCP requests."""
        ae = AE(self.ae.ae_title)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        port = free_port()
        server = ae.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)],
        )
        assert server is not None
        try:
            yield port
        finally:
            server.shutdown()


def send(association: Association, *instances: str) -> None:
    for name in instances:
        dataset = pydicom.dcmread(BytesIO(build.ct(instance=name)))
        assert association.send_c_store(dataset).Status == 0x0000


def ask(
    association: Association, *instances: str, sop_class: str = CT, transaction: str = "1.2.3.4"
) -> int:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = []
    for name in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = build.uid(name)
        dataset.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(dataset, 1, StorageCommitmentPushModel, WELL_KNOWN)
    return int(status.Status)


def outcome(dataset: Dataset) -> tuple[set[str], dict[str, int]]:
    committed = {
        str(item.ReferencedSOPInstanceUID) for item in dataset.get("ReferencedSOPSequence") or ()
    }
    failed = {
        str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
        for item in dataset.get("FailedSOPSequence") or ()
    }
    return committed, failed


class TestAsScp:
    def test_reports_on_the_association_that_asked(self, system: System) -> None:
        with gateway(system) as port, Scu(port).association() as association:
            send(association, "one", "two")
            system.work()
            assert ask(association, "one", "two") == 0x0000
            assert wait_until(lambda: _finished(system) is not None, _WITHIN_S)
        done = _finished(system)
        assert (done["committed"], done["failed"]) == (2, 0)
        # The message of the request finds nothing left to tell.
        assert system.work() == [204]

    def test_tells_what_the_report_says(self, system: System) -> None:
        with gateway(system) as port:
            scu = Scu(port)
            with scu.association() as association:
                send(association, "one")
                system.work()
                assert ask(association, "one") == 0x0000
                event_type, dataset = scu.reports.get(timeout=_WITHIN_S)
            assert event_type == 1
            assert dataset.TransactionUID == "1.2.3.4"
            assert outcome(dataset) == ({build.uid("one")}, {})

    def test_reports_once_all_is_delivered_and_not_before(self, system: System) -> None:
        with gateway(system) as port:
            scu = Scu(port)
            with scu.association() as association:
                send(association, "one")
                system.work(Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)
                assert ask(association, "one") == 0x0000
                with pytest.raises(queue.Empty):
                    scu.reports.get(timeout=1)
                system.work(Topic.DELIVERY_REQUESTED)
                assert outcome(scu.reports.get(timeout=_WITHIN_S)[1]) == (
                    {build.uid("one")},
                    {},
                )

    def test_goes_on_storing_while_a_report_is_awaited(self, system: System) -> None:
        with gateway(system) as port:
            scu = Scu(port)
            with scu.association() as association:
                send(association, "one")
                assert ask(association, "one") == 0x0000
                send(association, "two")
                system.work(refused=True)
                assert scu.reports.get(timeout=_WITHIN_S)[0] == 1

    def test_reports_on_a_new_association_once_the_old_one_is_over(self, system: System) -> None:
        """As most modalities do it: ask, release, listen."""
        with gateway(system) as port:
            scu = Scu(port)
            with scu.association() as association:
                send(association, "one")
                assert ask(association, "one") == 0x0000
            with scu.listening() as listening_port:
                _know(system, "CT1", listening_port)
                wait_until(lambda: _held_until(system) <= _now(system), _WITHIN_S)
                assert set(system.work(refused=True)) == {204, 425}
                system.clock.advance(61)
                assert system.work() == [204]
                event_type, dataset = scu.reports.get(timeout=_WITHIN_S)
        assert event_type == 1
        assert outcome(dataset) == ({build.uid("one")}, {})
        assert _finished(system)["committed"] == 1

    def test_tries_again_until_the_peer_listens(self, system: System) -> None:
        with gateway(system) as port:
            scu = Scu(port)
            with scu.association() as association:
                send(association, "one")
                assert ask(association, "one") == 0x0000
            wait_until(lambda: _held_until(system) <= _now(system), _WITHIN_S)
            system.work(Topic.INSTANCE_RECEIVED)
            system.work(Topic.INSTANCE_ACCEPTED)
            system.work(Topic.DELIVERY_REQUESTED)
            _know(system, "CT1", free_port())
            assert system.work(refused=True) == [503]
            with scu.listening() as listening_port:
                _know(system, "CT1", listening_port)
                system.clock.advance(61)
                assert system.work(refused=True) == [204]
                assert scu.reports.get(timeout=_WITHIN_S)[0] == 1

    def test_is_not_forgotten_by_a_restart(self, tmp_path: Path) -> None:
        """The gateway was killed: nobody let go of the request, which ends by itself."""
        first = System(tmp_path / "home")
        request = CommitmentRequest("1.2.9", (Reference(CT, build.uid("one")),))
        first.receive("one")
        first.work()
        source = build_source("CT1")
        first.ports.commitments.request(request, source, here_for_s=65)
        again = System(tmp_path / "home")
        assert again.work(refused=True) == [425]
        again.clock.advance(70)
        scu = Scu(0)
        with scu.listening() as listening_port:
            _know(again, "CT1", listening_port)
            assert again.work() == [204]
            assert scu.reports.get(timeout=_WITHIN_S)[0] == 1

    def test_says_why_an_instance_is_not_committed(self, system: System) -> None:
        with gateway(system) as port:
            scu = Scu(port)
            with scu.association() as association:
                send(association, "one", "two")
                system.work()
                known = system.ports.documents.query("deliveries").documents
                failed = next(d for d in known if d.data["sop_instance_uid"] == build.uid("two"))
                data = {**failed.data, "state": "failed"}
                system.ports.documents.put("deliveries", failed.key, data)
                assert ask(association, "one", "two", "never", transaction="1.5") == 0x0000
                with pytest.raises(queue.Empty):
                    scu.reports.get(timeout=0.5)  # the third may be on its way
                system.clock.advance(61)
                event_type, dataset = scu.reports.get(timeout=_WITHIN_S)
                assert event_type == 2
                assert outcome(dataset) == (
                    {build.uid("one")},
                    {build.uid("two"): 0x0110, build.uid("never"): 0x0112},
                )
                assert ask(association, "one", sop_class="1.2.840.10008.5.1.4.1.1.4") == 0x0000
                assert outcome(scu.reports.get(timeout=_WITHIN_S)[1]) == (
                    set(),
                    {build.uid("one"): 0x0119},
                )

    def test_leaves_the_report_to_others_when_the_gateway_stops(self, system: System) -> None:
        with gateway(system) as port, Scu(port).association() as association:
            send(association, "one")
            assert ask(association, "one") == 0x0000
            assert _held_until(system) > _now(system)
        assert _held_until(system) <= _now(system)

    def test_gives_up_on_deliveries_that_take_too_long(self, system: System) -> None:
        request = CommitmentRequest("1.2.9", (Reference(CT, build.uid("one")),))
        system.receive("one")
        system.work(Topic.INSTANCE_RECEIVED)
        system.work(Topic.INSTANCE_ACCEPTED)
        key = system.ports.commitments.request(request, build_source("CT1"), here_for_s=0)
        inquiry = system.ports.commitments.inquire(key)
        assert inquiry is not None
        system.clock.advance(DAY - 1)
        assert inquiry.report() is None
        system.clock.advance(2)
        report = inquiry.report()
        assert report is not None
        assert [failure.reason for failure in report.failures] == [0x0110]

    def test_waits_for_what_was_decided_anew(self, system: System) -> None:
        """What is confirmed is what was decided before."""
        system.receive("one")
        system.work()
        ruleset = {
            "name": "all",
            "execution_mode": "ALL_MATCHES",
            "rules": [
                {
                    "name": "every",
                    "actions": [{"type": "set", "tag": "StationName", "value": "CT-7"}],
                    "storage_backends": ["primary-storage"],
                }
            ],
        }
        system.ports.configuration.create("rulesets", ruleset, by="test")
        (instance,) = system.ports.documents.query("instances").documents
        rules.decide_anew(receipt_of(instance.data), (), system.ports, corrects=True)
        system.work(Topic.INSTANCE_ACCEPTED)
        request = CommitmentRequest("1.2.9", (Reference(CT, build.uid("one")),))
        key = system.ports.commitments.request(request, build_source("CT1"), here_for_s=0)
        inquiry = system.ports.commitments.inquire(key)
        assert inquiry is not None
        assert inquiry.report() is None
        system.work(Topic.DELIVERY_REQUESTED)
        report = inquiry.report()
        assert report is not None
        assert [one.sop_instance_uid for one in report.committed] == [build.uid("one")]

    def test_records_that_it_does_not_know_where_to_report(self, system: System) -> None:
        request = CommitmentRequest("1.2.9", (Reference(CT, build.uid("one")),))
        system.ports.commitments.request(request, build_source("NOBODY"), here_for_s=0)
        system.clock.advance(61)
        system.work()
        (entry,) = system.ports.exceptions.list().documents
        assert entry.data["code"] == "commitment-peer-unknown"
        scu = Scu(0, "NOBODY")
        with scu.listening() as listening_port:
            _know(system, "NOBODY", listening_port)
            system.ports.exceptions.retry(entry.key, by="test")
            system.work()
            assert scu.reports.get(timeout=_WITHIN_S)[0] == 2

    def test_refuses_what_is_no_request(self, system: System) -> None:
        with gateway(system) as port, Scu(port).association() as association:
            assert ask(association) == 0x0115
            dataset = Dataset()
            dataset.TransactionUID = "1.2"
            status, _ = association.send_n_action(
                dataset, 7, StorageCommitmentPushModel, WELL_KNOWN
            )
            assert status.Status == 0x0123
            status, _ = association.send_n_action(dataset, 1, StorageCommitmentPushModel, "1.2.3")
            assert status.Status == 0x0112
            status, _ = association.send_n_get([], StorageCommitmentPushModel, WELL_KNOWN)
            assert status.Status == 0x0211
            send(association, "still-works")

    def test_does_not_answer_success_before_the_request_is_durable(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise StorageUnavailableError("queue.db: disk full")

        monkeypatch.setattr(system.ports.commitments, "request", full)
        with gateway(system) as port, Scu(port).association() as association:
            assert ask(association, "one") == 0x0213


class CommittingScp:
    """pynetdicom, as it stores and commits itself: on the association, its own, or not at all."""

    def __init__(self, how: str, report_to: int = 0) -> None:
        self.how, self._report_to = how, report_to
        self.asked: list[Dataset] = []
        self.ae = AE("ARCHIVE")
        self.ae.add_supported_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
        if how != "unsupported":
            self.ae.add_supported_context(StorageCommitmentPushModel)

    def _act(self, event: Any) -> tuple[int, None]:
        self.asked.append(event.action_information)
        threading.Thread(target=self._report, args=(event.assoc, self.asked[-1])).start()
        return (0x0110, None) if self.how == "refuses" else (0x0000, None)

    def _report(self, association: Association, asked: Dataset) -> None:
        dataset = Dataset()
        dataset.TransactionUID = asked.TransactionUID
        event_type = 1
        if self.how == "fails":
            event_type = 2
            dataset.FailedSOPSequence = asked.ReferencedSOPSequence
            dataset.FailedSOPSequence[0].FailureReason = 0x0213
        else:
            dataset.ReferencedSOPSequence = asked.ReferencedSOPSequence
        if self.how in ("here", "fails"):
            association.send_n_event_report(
                dataset, event_type, StorageCommitmentPushModel, WELL_KNOWN
            )
        elif self.how == "elsewhere":
            self.ae.add_requested_context(StorageCommitmentPushModel)
            role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
            own = established(self.ae, self._report_to, ext_neg=[role])
            status, _ = own.send_n_event_report(
                dataset, event_type, StorageCommitmentPushModel, WELL_KNOWN
            )
            assert status.Status == 0x0000
            own.release()

    @contextmanager
    def running(self) -> Iterator[int]:
        port = free_port()
        server = self.ae.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_STORE, lambda event: 0x0000),
                (evt.EVT_N_ACTION, self._act),
            ],
        )
        assert server is not None
        try:
            yield port
        finally:
            server.shutdown()


class TestAsScu:
    def destination(self, system: System, port: int, **settings: Any) -> None:
        system.ports.configuration.apply(
            {
                "destinations": [
                    {
                        "name": "archive",
                        "type": "dimse",
                        "host": "127.0.0.1",
                        "port": port,
                        "ae_title": "ARCHIVE",
                        "storage_commitment": True,
                        "commitment_timeout_s": 5,
                        **settings,
                    }
                ],
                "settings": {"default_route": ["archive"], "min_free_bytes": 0},
            },
            by="test",
        )
        system.clock.advance(1)

    def delivery(self, system: System) -> dict[str, Any]:
        (document,) = system.ports.documents.query("deliveries").documents
        return dict(document.data)

    def test_a_delivery_counts_once_the_peer_has_committed_itself(self, system: System) -> None:
        scp = CommittingScp("here")
        with scp.running() as port:
            self.destination(system, port)
            receipt = system.receive("one")
            assert set(system.work()) == {204}
        delivery = self.delivery(system)
        assert (delivery["state"], delivery["answer"]) == ("delivered", "0000H, committed")
        (asked,) = scp.asked
        (item,) = asked.ReferencedSOPSequence
        assert item.ReferencedSOPInstanceUID == receipt.sop_instance_uid

    def test_the_peer_may_say_so_to_a_listener_of_ours(self, system: System) -> None:
        with (
            gateway(system) as own_port,
            CommittingScp("elsewhere", own_port).running() as port,
        ):
            self.destination(system, port)
            system.receive("one")
            assert set(system.work()) == {204}
        assert self.delivery(system)["answer"] == "0000H, committed"

    @pytest.mark.parametrize(
        ("how", "words"),
        [("fails", "0213H"), ("silent", "within"), ("refuses", "N-ACTION 0110H")],
    )
    def test_a_delivery_is_tried_again_while_the_peer_does_not_commit_itself(
        self, system: System, how: str, words: str
    ) -> None:
        scp = CommittingScp(how)
        with scp.running() as port:
            self.destination(system, port, commitment_timeout_s=0.5)
            system.receive("one")
            assert 503 in system.work(refused=True)
            assert self.delivery(system)["state"] == "retrying"
            assert words in self.delivery(system)["error"]
            scp.how = "here"
            system.clock.advance(61)
            assert system.work(refused=True) == [204]
        assert self.delivery(system)["state"] == "delivered"

    def test_is_asked_for_again_if_we_died_between_storing_and_asking(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Died(BaseException):
            """As SIGKILL: nothing of ours gets to deal with it."""

        def die(name: str) -> None:
            if name == crash_points.AFTER_STORE:
                raise Died

        scp = CommittingScp("here")
        with scp.running() as port:
            self.destination(system, port)
            system.receive("one")
            with monkeypatch.context() as patch:
                patch.setattr(crash_points, "reached", die)
                with pytest.raises(Died):
                    system.work()
            assert not scp.asked
            assert system.ports.documents.count("deliveries") == 0
            system.clock.advance(61)
            assert set(system.work()) == {204}
        assert self.delivery(system)["answer"] == "0000H, committed"

    def test_a_peer_that_does_no_commitment_is_misconfigured(self, system: System) -> None:
        with CommittingScp("unsupported").running() as port:
            self.destination(system, port)
            system.receive("one")
            system.work()
        assert self.delivery(system)["state"] == "failed"
        (entry,) = system.ports.exceptions.list().documents
        assert entry.data["code"] == "destination-misconfigured"
        # It is stored all the same, so other bytes may not take its place unseen.
        (copy,) = system.ports.documents.query("copies").documents
        assert copy.data["claim"]["is_idle"]


class TestWithOrthanc:
    def test_it_commits_itself_to_what_we_deliver(
        self, system: System, start_orthanc: StartOrthanc
    ) -> None:
        """Orthanc always reports on an association of its own, to where it is told we listen."""
        with gateway(system) as own_port:
            orthanc = start_orthanc(DicomModalities={"axiom": ["AXIOM", "127.0.0.1", own_port]})
            TestAsScu().destination(
                system, orthanc.port, ae_title="ORTHANC", commitment_timeout_s=20
            )
            system.receive("one")
            assert set(system.work()) == {204}
        assert TestAsScu().delivery(system)["answer"] == "0000H, committed"

    def test_it_asks_us_and_is_told(self, system: System, start_orthanc: StartOrthanc) -> None:
        with gateway(system) as own_port:
            orthanc: OrthancPeer = start_orthanc(
                DicomModalities={"axiom": {"AET": "AXIOM", "Host": "127.0.0.1", "Port": own_port}}
            )
            rest = orthanc.rest_url
            for name in ("one", "two"):
                requests.post(f"{rest}/instances", data=build.ct(instance=name), timeout=60)
            ids = orthanc.instance_ids()
            sent = requests.post(
                f"{rest}/modalities/axiom/store",
                json={"Resources": ids, "StorageCommitment": True, "Synchronous": True},
                timeout=60,
            ).json()
            transaction = sent["StorageCommitmentTransactionUID"]
            _know(system, "ORTHANC", orthanc.port)

            def told() -> str:
                system.work(refused=True)
                system.clock.advance(61)
                answer = requests.get(f"{rest}/storage-commitment/{transaction}", timeout=60)
                return str(answer.json()["Status"]) if answer.ok else ""

            assert wait_until(lambda: told() not in ("", "Pending"), _WITHIN_S)
            assert told() == "Success"


def build_source(ae_title: str) -> Source:
    return Source("dimse", "test", calling_ae_title=ae_title, called_ae_title="AXIOM")


def _know(system: System, ae_title: str, port: int) -> None:
    """Have the configuration say where the AE listens."""
    peers = {ae_title: {"host": "127.0.0.1", "port": port}}
    entity = {"name": "test", "port": 11999, "commitment_peers": peers}
    system.ports.configuration.apply({"listeners": [entity]}, by="test")
    system.clock.advance(1)


def _document(system: System) -> Any:
    documents = system.ports.documents.query("commitments").documents
    return documents[0].data if documents else None


def _finished(system: System) -> Any:
    found = _document(system)
    return found if found and found["finished_at"] else None


def _held_until(system: System) -> str:
    return str(_document(system)["held_until"])


def _now(system: System) -> str:
    return timestamp(system.clock.now())
