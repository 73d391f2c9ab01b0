"""Query/Retrieve on an association whose peer sends whatever it likes, from an archive that does as
a test says.
"""

from __future__ import annotations

import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from scp_gateway.gateway import Gateway
from scp_gateway.query_services import QUERY_SOP_CLASSES
from shared import metrics
from shared.adapters.destinations.association import Peer
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.adapters.tls import TlsContexts
from shared.config.query_retrieve import QueryRetrieve
from shared.dicom.query import Key, Match, Query, _encode
from shared.errors import SourceMisconfiguredError, SourceUnavailableError
from shared.ports import FoundInstance, Retrieval, Retrieved
from tests.certificates import Authority
from tests.counting import counting
from tests.gateway import (
    A_ABORT,
    COMMAND,
    DATA,
    EXPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    VERIFICATION,
    MemoryReceiver,
    RawPeer,
    accepted_syntaxes,
    command_elements,
    command_set,
    echo_rq,
    listener,
    p_data,
    pdv,
    running_gateway,
)

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{i}" for i in (1, 2, 3))
WORKLIST = "1.2.840.10008.5.1.4.31"
C_FIND, C_MOVE, C_CANCEL = 0x0020, 0x0021, 0x0FFF
PENDING, SUCCESS, CANCELLED = 0xFF00, 0x0000, 0xFE00
SYNTAX = EXPLICIT_VR_LITTLE_ENDIAN

Found = Callable[[], Iterator[Match | None]]


class ScriptedArchives:
    """Archives with one archive, which is this too."""

    max_instance_bytes = 1 << 20

    def __init__(self, found: Found) -> None:
        self._found = found
        self.queries: list[Query] = []
        self.closed = threading.Event()

    def of(self, name: str) -> ScriptedArchives:
        assert name == "archive"
        return self

    def find(self, query: Query) -> Iterator[Match | None]:
        self.queries.append(query)
        try:
            yield from self._found()
        finally:
            self.closed.set()

    def worklist(self, name: str) -> ScriptedWorklist:
        assert name == "ris"
        return ScriptedWorklist(self._found, self.closed)

    def matches_fuzzily(self, services: QueryRetrieve) -> bool:
        return False

    def instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]:
        self.queries.append(query)
        yield from ()

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        raise AssertionError(wanted)

    def move_destination(
        self, services: QueryRetrieve, ae_title: str, *, calling_ae_title: str, timeout_s: float
    ) -> Peer | None:
        return None


class ScriptedWorklist:
    """A worklist with what an archive was told to find."""

    def __init__(self, found: Found, closed: threading.Event) -> None:
        self._found, self._closed = found, closed

    def find(self, keys: Sequence[Key]) -> Iterator[Match | None]:
        try:
            yield from self._found()
        finally:
            self._closed.set()


def study(number: int) -> Match:
    return Match({"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}})


def endless() -> Iterator[Match | None]:
    """Two matches, and then the store is asked for ever."""
    yield study(1)
    yield study(2)
    while True:
        time.sleep(0.001)
        yield None


def identifier(level: str = "STUDY", **keys: Any) -> bytes:
    data_set = Dataset()
    data_set.QueryRetrieveLevel = level
    data_set.StudyInstanceUID = ""
    for keyword, value in keys.items():
        setattr(data_set, keyword, value)
    return _encode(data_set, SYNTAX)


def request(
    field: int, data: bytes | None, *, message_id: int = 7, context_id: int = 1, sop: str = FIND
) -> bytes:
    uid = sop.encode() + b"\0" * (len(sop) % 2)
    elements = {
        0x0002: uid,
        0x0100: struct.pack("<H", field),
        0x0110: struct.pack("<H", message_id),
        0x0600: b"NOBODY",
        0x0700: b"\0\0",
        0x0800: b"\1\1" if data is None else b"\0\0",
    }
    if field == C_CANCEL:
        del elements[0x0002], elements[0x0110]
        elements[0x0120] = struct.pack("<H", message_id)
    pdvs = [pdv(context_id, COMMAND | LAST, command_set(elements))]
    if data is not None:
        pdvs.append(pdv(context_id, DATA | LAST, data))
    return b"".join(map(p_data, pdvs))


def response(peer: RawPeer) -> int:
    """The Status of the next response; its identifier is read past."""
    elements = peer.receive_response()
    if elements[0x0800] != b"\1\1":
        peer.receive_pdu()
    return int.from_bytes(elements[0x0900], "little")


def statuses(peer: RawPeer) -> list[int]:
    """Those of the responses, the final one included."""
    given = [response(peer)]
    while given[-1] in (PENDING, 0xFF01):
        given.append(response(peer))
    return given


@contextmanager
def asked(archives: ScriptedArchives, **services: Any) -> Iterator[RawPeer]:
    """A peer that may ask for C-FIND in context 1, C-MOVE in 3 and C-ECHO in 5."""
    offered = {"store": "archive", **services}
    with (
        running_gateway(MemoryReceiver(), archives, query_retrieve=offered) as (_, port),
        RawPeer(port) as peer,
    ):
        peer.associate([(FIND, [SYNTAX]), (MOVE, [SYNTAX]), (VERIFICATION, [SYNTAX])])
        yield peer


def test_each_service_is_accepted_if_the_listener_has_it() -> None:
    archives = ScriptedArchives(lambda: iter(()))
    contexts = [(uid, [SYNTAX]) for uid in sorted(QUERY_SOP_CLASSES)]

    def results(**services: Any) -> list[int]:
        with (
            running_gateway(MemoryReceiver(), archives, **services) as (_, port),
            RawPeer(port) as peer,
        ):
            _, body = peer.associate([*contexts, (VERIFICATION, [SYNTAX])])
            return [result for _, (result, _) in sorted(accepted_syntaxes(body).items())]

    assert results() == [3] * 7 + [0]
    assert results(query_retrieve={"store": "archive"}) == [0] * 6 + [3, 0]
    assert results(worklist="ris") == [3] * 6 + [0, 0]
    only_find = {"store": "archive", "move": False, "get": False}
    assert results(query_retrieve=only_find) == [0, 3, 3, 0, 3, 3, 3, 0]


def test_matches_are_pending_responses_and_the_last_one_is_success() -> None:
    archives = ScriptedArchives(lambda: iter([study(1), None, study(2)]))
    with counting(metrics.QUERIES) as queries, asked(archives) as peer:
        peer.send(request(C_FIND, identifier()))
        assert statuses(peer) == [PENDING, PENDING, SUCCESS]
        # The association goes on.
        peer.send(request(C_FIND, identifier()))
        assert statuses(peer) == [PENDING, PENDING, SUCCESS]
        peer.release()
    ((labels, number),) = queries().items()
    assert (labels[1:], number) == (("C-FIND", "0000H"), 2)


def test_a_key_that_was_not_matched_is_told() -> None:
    match = Match({"0020000D": {"vr": "UI", "Value": ["1.2"]}}, is_certain=False)
    with asked(ScriptedArchives(lambda: iter([match]))) as peer:
        peer.send(request(C_FIND, identifier()))
        assert statuses(peer) == [0xFF01, SUCCESS]


def test_c_cancel_in_the_middle_ends_a_search_that_would_not_end() -> None:
    archives = ScriptedArchives(endless)
    with asked(archives) as peer:
        peer.send(request(C_FIND, identifier()))
        assert response(peer) == PENDING
        # Of another request: it is ignored.
        peer.send(request(C_CANCEL, None, message_id=8))
        assert response(peer) == PENDING
        peer.send(request(C_CANCEL, None))
        assert statuses(peer)[-1] == CANCELLED
        assert archives.closed.wait(120)
        peer.send(p_data(pdv(5, COMMAND | LAST, echo_rq(9))))
        assert peer.receive_status() == SUCCESS
        peer.release()


def test_a_worklist_is_searched_and_cancelled_in_the_same_way() -> None:
    archives = ScriptedArchives(endless)
    with (
        running_gateway(MemoryReceiver(), archives, worklist="ris") as (_, port),
        RawPeer(port) as peer,
    ):
        peer.associate([(WORKLIST, [SYNTAX]), (FIND, [SYNTAX]), (VERIFICATION, [SYNTAX])])
        peer.send(request(C_FIND, b"", sop=WORKLIST))
        assert response(peer) == PENDING
        assert response(peer) == PENDING
        peer.send(request(C_CANCEL, None))
        assert response(peer) == CANCELLED
        assert archives.closed.wait(60)
        peer.send(request(C_MOVE, identifier(), sop=WORKLIST))
        assert response(peer) == 0x0211  # unrecognized operation
        peer.release()


def test_a_peer_that_leaves_in_the_middle_ends_the_search() -> None:
    archives = ScriptedArchives(endless)
    with asked(archives) as peer:
        peer.send(request(C_FIND, identifier()))
        assert response(peer) == PENDING
    assert archives.closed.wait(120)


def test_c_echo_is_answered_while_a_search_goes_on() -> None:
    with asked(ScriptedArchives(endless)) as peer:
        peer.send(request(C_FIND, identifier()))
        peer.send(p_data(pdv(5, COMMAND | LAST, echo_rq(9))))
        while True:
            elements = peer.receive_response()
            if elements[0x0100] == b"\x30\x80":
                break
            assert elements[0x0100] == b"\x20\x80"
            peer.receive_pdu()


def test_a_second_request_while_one_is_answered_is_out_of_order() -> None:
    archives = ScriptedArchives(endless)
    with asked(archives) as peer:
        peer.send(request(C_FIND, identifier()) + request(C_FIND, identifier(), message_id=8))
        while (received := peer.receive_pdu())[0] != A_ABORT:
            assert received[0] == 4


def test_a_gateway_that_stops_ends_the_search() -> None:
    archives = ScriptedArchives(endless)
    offered = {"store": "archive"}
    with (
        running_gateway(MemoryReceiver(), archives, query_retrieve=offered) as (gateway, port),
        RawPeer(port) as peer,
    ):
        peer.associate([(FIND, [SYNTAX])])
        peer.send(request(C_FIND, identifier()))
        assert response(peer) == PENDING
        gateway.stop(5)
        assert archives.closed.wait(120)


def test_c_cancel_is_seen_under_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway")
    archives = ScriptedArchives(endless)
    contexts = TlsContexts(FileSecretStore(tmp_path / "secrets"), SystemClock())
    gateway = Gateway(MemoryReceiver(), tls=contexts, archives=archives)
    tls = {
        "certificate_file": str(certificate),
        "private_key_file": str(key),
        "require_client_certificate": False,
    }
    assert gateway.apply([listener(tls=tls, query_retrieve={"store": "archive"})]) == {}
    try:
        with RawPeer(gateway.ports()["test"]) as peer:
            context = ssl.create_default_context(cafile=str(authority.file))
            peer.socket = context.wrap_socket(peer.socket, server_hostname="127.0.0.1")
            peer.associate([(FIND, [SYNTAX])])
            # Both in one record: the second lies decrypted in the gateway when the search begins.
            peer.send(request(C_FIND, identifier()) + request(C_CANCEL, None))
            assert statuses(peer)[-1] == CANCELLED
            peer.send(request(C_FIND, identifier()))
            assert response(peer) == PENDING
            peer.send(request(C_CANCEL, None))
            assert statuses(peer)[-1] == CANCELLED
            peer.release()
    finally:
        gateway.stop(0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SourceUnavailableError("archive", "connection failed"), 0xA700),
        (SourceMisconfiguredError("archive", "answers, but not as a DICOMweb server"), 0xC001),
        (ZeroDivisionError("a bug"), 0xC001),
    ],
)
def test_an_archive_that_fails_is_a_status_with_a_comment(error: Exception, status: int) -> None:
    def fails() -> Iterator[Match | None]:
        yield study(1)
        raise error

    with asked(ScriptedArchives(fails)) as peer:
        peer.send(request(C_FIND, identifier()))
        assert response(peer) == PENDING
        elements = peer.receive_response()
        assert int.from_bytes(elements[0x0900], "little") == status
        assert elements[0x0902]
        peer.release()


@pytest.mark.parametrize(
    ("field", "data", "status"),
    [
        (C_FIND, identifier("PATIENT"), 0xA900),  # not of this model
        (C_FIND, identifier("STUDIES"), 0xA900),
        (C_FIND, b"\xff" * 100, 0xA900),
        (C_FIND, b"", 0xA900),
        (C_FIND, None, 0xA900),
        (C_MOVE, identifier(), 0x0211),  # in a context of C-FIND
    ],
)
def test_a_request_that_cannot_be_understood_is_refused(
    field: int, data: bytes | None, status: int
) -> None:
    with asked(ScriptedArchives(lambda: iter(()))) as peer:
        peer.send(request(field, data))
        assert statuses(peer) == [status]
        peer.release()


def test_a_move_without_a_unique_key_or_to_nobody_is_refused() -> None:
    with asked(ScriptedArchives(lambda: iter(()))) as peer:
        peer.send(request(C_MOVE, identifier(), context_id=3, sop=MOVE))
        assert statuses(peer) == [0xA900]
        named = identifier(StudyInstanceUID="1.2.3")
        peer.send(request(C_MOVE, named, context_id=3, sop=MOVE))
        assert statuses(peer) == [0xA801]
        peer.release()


@pytest.fixture(scope="module")
def shared_port() -> Iterator[int]:
    archives = ScriptedArchives(lambda: iter([study(1)]))
    with running_gateway(MemoryReceiver(), archives, query_retrieve={"store": "archive"}) as (
        _,
        port,
    ):
        yield port


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300), st.integers(0, 60), st.integers(0, 30))
def test_whatever_the_identifier_is_there_is_one_final_response(
    shared_port: int, noise: bytes, at: int, cut: int
) -> None:
    whole = identifier(PatientName="A*", StudyDate="20240101-")
    data = whole[:at] + noise + whole[at + cut :]
    with RawPeer(shared_port) as peer:
        peer.associate([(FIND, [SYNTAX])])
        peer.send(request(C_FIND, data))
        assert statuses(peer)[-1] in (SUCCESS, 0xA900)
        peer.release()


def test_a_response_of_a_move_tells_how_many() -> None:
    class Moves(ScriptedArchives):
        def move_destination(self, *_: Any, **__: Any) -> Peer | None:
            return Peer("127.0.0.1", 9, "NOBODY", "AXIOM", 16384, 1.0)

    with asked(Moves(lambda: iter(()))) as peer:
        named = identifier(StudyInstanceUID="1.2.3")
        peer.send(request(C_MOVE, named, context_id=3, sop=MOVE))
        kind, body = peer.receive_pdu()
        elements = command_elements(body[6:])
        assert kind == 4
        assert elements[0x0900] == b"\0\0"
        # None that fits is a success, and nothing remains.
        assert [elements[e] for e in (0x1021, 0x1022, 0x1023)] == [b"\0\0"] * 3
        assert 0x1020 not in elements
