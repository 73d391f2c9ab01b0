"""Several Instances in one STOW-RS request, each delivered for itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.destinations import authorization
from shared.adapters.destinations.dicomweb import DicomwebDestination
from shared.adapters.destinations.google_healthcare import HealthcareDestination
from shared.adapters.embedded import runner
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    AxiomError,
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
    ObjectMissingError,
)
from shared.messages import DeliveryRequested, Stage, Topic
from shared.pipeline.deliver import steps
from shared.pipeline.push import PushRequest, Steps, answer_in_steps
from shared.ports import Filter
from tests.data import build
from tests.embedded_system import System
from tests.google.healthcare import healthcare
from tests.peers import OrthancPeer
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.scripted_http import Answer, Request, ScriptedHttp

To = Callable[..., DicomwebDestination]


@pytest.fixture
def to() -> Iterator[To]:
    made: list[DicomwebDestination] = []

    def make(url: str, **settings: Any) -> DicomwebDestination:
        settings = {"batch_instances": 16, "batch_bytes": 1 << 20, **settings}
        made.append(
            DicomwebDestination(
                "archive", base_url=url, authorization=authorization.none(), **settings
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def instances(folder: Path, *names: str, rows: int = 16) -> list[OutgoingInstance]:
    return [outgoing(folder, build.ct(rows, rows, instance=name)) for name in names]


def outcomes_of(
    destination: DicomwebDestination, batch: Sequence[OutgoingInstance]
) -> list[str | type[Exception]]:
    """What becomes of each, all begun before the first is asked for."""
    found: list[str | type[Exception]] = []
    for pending in [destination.begin(one) for one in batch]:
        try:
            found.append(pending.answer())
        except AxiomError as error:
            found.append(type(error))
    return found


def _module(request: Request, failed: Sequence[str] = ()) -> Answer:
    """As a server that stores what comes, but for those."""
    uids = [build.uid(name) for name in "abcde" if build.uid(name).encode() in request.body]
    stored = [
        {"00081155": {"vr": "UI", "Value": [uid]}}
        for uid in uids
        if uid not in map(build.uid, failed)
    ]
    refused = [
        {
            "00081155": {"vr": "UI", "Value": [build.uid(name)]},
            "00081197": {"vr": "US", "Value": [0xA900]},
        }
        for name in failed
        if build.uid(name) in uids
    ]
    body = {
        "00081199": {"vr": "SQ", "Value": stored},
        "00081198": {"vr": "SQ", "Value": refused},
    }
    return Answer(409 if not stored else 202 if refused else 200, json.dumps(body).encode())


class TestARequest:
    def test_brings_all_that_are_there_when_the_first_is_asked_for(
        self, to: To, tmp_path: Path
    ) -> None:
        with ScriptedHttp(_module) as server:
            assert outcomes_of(to(server.url), instances(tmp_path, "a", "b", "c")) == ["200"] * 3
            (request,) = server.requests
        for name in "abc":
            assert build.ct(instance=name) in request.body

    def test_is_as_long_as_it_says(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(_module) as server:
            outcomes_of(to(server.url), instances(tmp_path, "a", "b"))
            (request,) = server.requests
        assert int(request.headers["Content-Length"]) == len(request.body)

    def test_brings_so_many_and_no_more(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(_module) as server:
            destination = to(server.url, batch_instances=2)
            outcomes_of(destination, instances(tmp_path, *"abcde"))
            assert len(server.requests) == 3

    def test_brings_so_many_bytes_and_one_instance_at_least(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(_module) as server:
            destination = to(server.url, batch_bytes=100_000)
            outcomes_of(destination, instances(tmp_path, "a", "b", "c", rows=300))
            assert len(server.requests) == 3

    def test_has_a_uid_once(self, to: To, tmp_path: Path) -> None:
        """The answer could not say which of two it means."""
        with ScriptedHttp(_module) as server:
            assert outcomes_of(to(server.url), instances(tmp_path, "a", "a")) == ["200"] * 2
            assert len(server.requests) == 2

    def test_is_sent_once_however_many_ask(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(_module) as server:
            destination = to(server.url)
            pending = [destination.begin(one) for one in instances(tmp_path, *"abcde")]
            answers: list[str] = []
            threads = [
                threading.Thread(target=lambda one=one: answers.append(one.answer()))
                for one in pending
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (answers, len(server.requests)) == (["200"] * 5, 1)

    def test_leaves_out_who_has_withdrawn(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(_module) as server:
            destination = to(server.url)
            first, second = (destination.begin(one) for one in instances(tmp_path, "a", "b"))
            assert second.withdraw()
            assert first.answer() == "200"
            assert not first.withdraw()
            (request,) = server.requests
        assert build.uid("b").encode() not in request.body


class TestOneThatIsBad:
    def test_is_refused_alone_and_hurts_no_other(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(lambda request: _module(request, failed=["b"])) as server:
            found = outcomes_of(to(server.url), instances(tmp_path, "a", "b", "c"))
            assert found == ["202", DestinationRefusedError, "202"]

    @pytest.mark.parametrize("status", [400, 409, 413, 415])
    def test_has_the_others_sent_alone_where_all_of_a_request_is_refused(
        self, to: To, tmp_path: Path, status: int
    ) -> None:
        def respond(request: Request) -> Answer:
            is_bad = build.uid("b").encode() in request.body
            return Answer(status, b'{"message": "no"}') if is_bad else _module(request)

        with ScriptedHttp(respond) as server:
            found = outcomes_of(to(server.url), instances(tmp_path, "a", "b", "c"))
            assert found == ["200", DestinationRefusedError, "200"]

    def test_cannot_be_read_any_more(self, to: To, tmp_path: Path) -> None:
        bad = instances(tmp_path, "b")[0]

        def gone() -> Any:
            raise ObjectMissingError("received/b")

        good = instances(tmp_path, "a", "c")
        with ScriptedHttp(_module) as server:
            destination = to(server.url)
            pending = [destination.begin(one) for one in (good[0], bad, good[1])]
            object.__setattr__(bad, "part10_parts", gone)
            assert pending[0].answer() == "200"
            with pytest.raises(ObjectMissingError):
                pending[1].answer()
            assert pending[2].answer() == "200"

    def test_that_ends_the_connection_goes_alone_the_next_time(
        self, to: To, tmp_path: Path
    ) -> None:
        """All are tried again, as their copies may be there; and then no longer together."""

        def respond(request: Request) -> Answer:
            is_bad = build.uid("b").encode() in request.body
            return Answer(None) if is_bad else _module(request)

        batch = instances(tmp_path, "a", "b", "c")
        with ScriptedHttp(respond) as server:
            destination = to(server.url)
            assert outcomes_of(destination, batch) == [DestinationUnavailableError] * 3
            again = [replace(one, redelivery=True) for one in batch]
            found = outcomes_of(destination, again)
            assert found == ["200", DestinationUnavailableError, "200"]


class TestAServer:
    def test_that_names_no_instance_is_asked_about_each(self, to: To, tmp_path: Path) -> None:
        def respond(request: Request) -> Answer:
            is_alone = request.body.count(b"application/dicom\r\n\r\n") == 1
            return _module(request) if is_alone else Answer(200, b"{}")

        with ScriptedHttp(respond) as server:
            assert outcomes_of(to(server.url), instances(tmp_path, "a", "b")) == ["200"] * 2
            assert len(server.requests) == 3

    def test_that_says_200_and_no_more_has_stored_them_all(self, to: To, tmp_path: Path) -> None:
        with ScriptedHttp(lambda _: Answer(200)) as server:
            assert outcomes_of(to(server.url), instances(tmp_path, "a", "b")) == ["200"] * 2
            assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (Answer(503, b"", {"Retry-After": "7"}), DestinationUnavailableError),
            (Answer(401), DestinationMisconfiguredError),
            (Answer(404), DestinationMisconfiguredError),
        ],
    )
    def test_that_is_away_or_wrong_is_not_asked_for_each(
        self, to: To, tmp_path: Path, answer: Answer, error: type[Exception]
    ) -> None:
        with ScriptedHttp(lambda _: answer) as server:
            assert outcomes_of(to(server.url), instances(tmp_path, *"abc")) == [error] * 3
            assert len(server.requests) == 1

    def test_that_refuses_everybody_is_told_as_one_by_each(self, to: To, tmp_path: Path) -> None:
        """What waits for it is to wait on, and not to go to the exception log one after another."""
        with ScriptedHttp(lambda _: Answer(401)) as server:
            destination = to(server.url)
            for pending in [destination.begin(one) for one in instances(tmp_path, *"abc")]:
                with pytest.raises(DestinationMisconfiguredError) as raised:
                    pending.answer()
                assert raised.value.refuses_all


class TestOrthanc:
    def test_takes_several_at_once(self, orthanc: OrthancPeer, to: To, tmp_path: Path) -> None:
        found = outcomes_of(to(orthanc.dicomweb_url), instances(tmp_path, "a", "b", "c"))
        assert found == ["200"] * 3
        for name in "abc":
            assert orthanc.file(build.uid(name)) == build.ct(instance=name)

    def test_keeps_the_good_beside_a_bad_one(
        self, orthanc: OrthancPeer, to: To, tmp_path: Path
    ) -> None:
        nameless = build.ct(instance="b", changes={0x0020000D: None})
        batch = [*instances(tmp_path, "a", "c"), outgoing(tmp_path, nameless)]
        found = outcomes_of(to(orthanc.dicomweb_url), batch)
        assert found[:2] == ["stored; 400 for others of the request"] * 2
        assert isinstance(found[2], type)
        assert len(orthanc.instance_ids()) == 2


def test_the_healthcare_api_takes_several_at_once(tmp_path: Path) -> None:
    """Other bytes under a UID that it has are a conflict of that one alone."""
    with healthcare() as store:
        store.put(build.ct(instance="b", patient_id="OTHER-0001"))
        destination = HealthcareDestination(
            "store", base_url=store.dicomweb_url, batch_instances=16, batch_bytes=1 << 20
        )
        found = outcomes_of(destination, instances(tmp_path, "a", "b", "c"))
        assert found[1] is InstanceConflictError
        assert found[0] == found[2] == "stored; 409 for others of the request"
        assert store.get(build.uid("c")) == build.ct(instance="c")
        # It gives way where it is to, and the others of the request are stored with it.
        batch = [replace(one, replaces=True) for one in instances(tmp_path, "b", "d", "e")]
        assert all(isinstance(one, str) for one in outcomes_of(destination, batch))
        assert store.get(build.uid("b")) == build.ct(instance="b")
        destination.close()


def test_what_waits_for_a_destination_goes_in_few_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though each Instance is claimed, delivered and recorded for itself."""
    monkeypatch.setattr(runner, "_LONGEST_WAIT_S", 0.005)  # a fake clock wakes nobody
    system = System(tmp_path / "home")
    ports = system.ports
    assert isinstance(ports.bus, SqliteMessageBus)
    assert isinstance(ports.documents, SqliteDocumentStore)
    names = [f"n{number}" for number in range(12)]

    def respond(request: Request) -> Answer:
        stored = [uid for uid in map(build.uid, names) if uid.encode() in request.body]
        items = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]
        return Answer(200, json.dumps({"00081199": {"vr": "SQ", "Value": items}}).encode())

    with ScriptedHttp(respond) as server:
        archive = {"name": "archive", "type": "dicomweb", "base_url": server.url}
        settings = {"default_route": ["archive"], "min_free_bytes": 0}
        ports.configuration.apply({"destinations": [archive], "settings": settings}, by="test")
        for name in names:
            system.receive(name)
        system.work(Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)
        done, until = threading.Event(), threading.Event()

        def deliver(request: PushRequest) -> Steps:
            return answer_in_steps(
                request,
                DeliveryRequested,
                Stage.DELIVER,
                Topic.DELIVERY_REQUESTED,
                lambda message: steps(message, ports),
                ports,
            )

        working = runner.Runner(
            ports.bus,
            {Topic.DELIVERY_REQUESTED: deliver},
            system.clock,
            documents=ports.documents,
            deferred=[Topic.DELIVERY_REQUESTED],
            max_concurrency=lambda _: 1,
        )
        thread = threading.Thread(target=working.run, args=(until,))
        thread.start()
        for _ in range(6000):
            where = [Filter("state", "==", "delivered")]
            if ports.documents.count("deliveries", where) == len(names):
                break
            done.wait(0.01)
        until.set()
        thread.join()
        assert ports.documents.count("deliveries", where) == len(names)
        assert sum(request.body.count(b"\r\n\r\n") for request in server.requests) == len(names)
        assert len(server.requests) < len(names)
    ports.destinations.close()
