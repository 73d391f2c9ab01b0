"""A running gateway and a peer that sends whatever bytes it likes, wrong ones included.

Whatever one peer does, the others are served, what is not committed is discarded and the peer gets
a DIMSE Status, an A-ASSOCIATE-RJ or an A-ABORT.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from scp_gateway.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_gateway.gateway import Gateway
from scp_gateway.message_reader import AbortReason
from shared.errors import (
    InstanceTooLargeError,
    MalformedHeaderError,
    OverloadedError,
    SopInstanceMismatchError,
    StorageUnavailableError,
)
from tests.gateway import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    COMMAND,
    CT_IMAGE_STORAGE,
    DATA,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    P_DATA_TF,
    VERIFICATION,
    MemoryReceiver,
    RawPeer,
    accepted_syntaxes,
    associate_rq,
    command_elements,
    command_set,
    echo_rq,
    item,
    listener,
    p_data,
    pdu,
    pdv,
    running_gateway,
    store_rq,
)

STORE = p_data(pdv(1, COMMAND | LAST, store_rq()))
DATA_SET = b"\x08\0\x18\0UI\x06\x001.2.3\0" * 20
DATA_SET_LAST = p_data(pdv(1, DATA | LAST, DATA_SET))
PRIVATE_SOP_CLASS = "1.2.826.0.1.3680043.2.1545.99"


@pytest.fixture
def receiver() -> MemoryReceiver:
    return MemoryReceiver()


@contextmanager
def associated(receiver: MemoryReceiver, **settings: Any) -> Iterator[RawPeer]:
    """A peer with an association that has CT Image Storage as context 1."""
    with running_gateway(receiver, **settings) as (_, port), RawPeer(port) as peer:
        kind, _ = peer.associate()
        assert kind == A_ASSOCIATE_AC
        yield peer


def data_set_of(data: bytes | bytearray) -> bytes:
    """The bytes after the File Meta Information."""
    return bytes(data[144 + struct.unpack_from("<L", data, 140)[0] :])


def expect_abort(peer: RawPeer, reason: AbortReason | None = None) -> None:
    kind, body = peer.receive_pdu()
    assert kind == A_ABORT
    if reason is not None:
        # Source 2: service-provider (PS3.8 9.3.8).
        assert body[2:] == bytes([2, reason])


class TestNegotiation:
    def test_contexts_are_answered_one_by_one_in_the_requestors_order(
        self, receiver: MemoryReceiver
    ) -> None:
        """PS3.8 9.3.3.2; the same Abstract Syntax may be proposed in several contexts."""
        htj2k = "1.2.840.10008.1.2.4.203"
        with running_gateway(receiver) as (_, port), RawPeer(port) as peer:
            kind, body = peer.associate(
                [
                    (CT_IMAGE_STORAGE, [EXPLICIT_VR_LITTLE_ENDIAN, htj2k]),
                    (CT_IMAGE_STORAGE, [htj2k, EXPLICIT_VR_LITTLE_ENDIAN]),
                    (VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN]),
                    (PRIVATE_SOP_CLASS, [IMPLICIT_VR_LITTLE_ENDIAN]),
                    (CT_IMAGE_STORAGE, ["1.2.840.113619.5.2"]),
                ]
            )
            assert kind == A_ASSOCIATE_AC
            answers = accepted_syntaxes(body)
            peer.release()
        assert answers[1] == (0, EXPLICIT_VR_LITTLE_ENDIAN)
        assert answers[3] == (0, htj2k)
        assert answers[5] == (0, IMPLICIT_VR_LITTLE_ENDIAN)
        assert answers[7][0] == 3
        assert answers[9][0] == 4

    def test_the_maximum_pdu_size_is_the_listeners(self, receiver: MemoryReceiver) -> None:
        with running_gateway(receiver, max_pdu_size=54321) as (_, port), RawPeer(port) as peer:
            _, body = peer.associate()
            assert b"\x51\0\0\x04" + struct.pack(">L", 54321) in body

    def test_the_answer_says_whose_implementation_it_is(self, receiver: MemoryReceiver) -> None:
        """PS3.7 D.3.3.2."""
        with running_gateway(receiver) as (_, port), RawPeer(port) as peer:
            _, body = peer.associate()
        assert item(0x52, IMPLEMENTATION_CLASS_UID.encode()) in body
        assert item(0x55, IMPLEMENTATION_VERSION_NAME.encode()) in body

    @pytest.mark.parametrize(
        "odd",
        [
            {"items": item(0x99, b"vendor")},
            {"user_items": item(0xF0, b"vendor")},
            {"user_items": item(0x55, b"A_VERSION_OF_TWENTY_")},
            {"user_items": item(0x53, b"\0\5\0\5")},  # asynchronous operations
            {"user_items": item(0x58, b"\1\1\0\3bob\0\0")},  # user identity
            {"calling": b"PEER\0\0", "called": b"AXIOM\0\0"},
            {"calling": "MÜNCHEN".encode("latin-1").ljust(16)},
        ],
    )
    def test_what_is_odd_but_harmless_in_a_request_is_accepted(
        self, receiver: MemoryReceiver, odd: dict[str, Any]
    ) -> None:
        """PS3.8 9.3.1: Items of an unrecognized type are ignored. The rest occurs in the field."""
        with (
            running_gateway(receiver, require_called_ae_title=True) as (_, port),
            RawPeer(port) as peer,
        ):
            assert peer.associate(**odd)[0] == A_ASSOCIATE_AC
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0
            peer.release()

    @pytest.mark.parametrize(
        ("settings", "request_", "code"),
        [
            ({"allowed_calling_ae_titles": ["CT1"]}, {}, (1, 1, 3)),
            ({"require_called_ae_title": True}, {"called": "OTHER"}, (1, 1, 7)),
            ({"allowed_peers": ["10.0.0.0/8"]}, {}, (1, 1, 1)),
            ({}, {"application_context": b"1.2.3"}, (1, 1, 2)),
            ({}, {"protocol_version": 2}, (1, 2, 2)),
        ],
    )
    def test_a_rejection_says_why(
        self,
        receiver: MemoryReceiver,
        settings: dict[str, Any],
        request_: dict[str, Any],
        code: tuple[int, int, int],
    ) -> None:
        with running_gateway(receiver, **settings) as (_, port), RawPeer(port) as peer:
            kind, body = peer.associate(**request_)
            assert kind == A_ASSOCIATE_RJ
            assert tuple(body[1:]) == code

    def test_one_association_too_many_is_rejected_and_a_release_makes_room(
        self, receiver: MemoryReceiver
    ) -> None:
        with running_gateway(receiver, max_associations=1) as (gateway, port):
            with RawPeer(port) as first, RawPeer(port) as second:
                assert first.associate()[0] == A_ASSOCIATE_AC
                kind, body = second.associate()
                assert kind == A_ASSOCIATE_RJ
                assert tuple(body[1:]) == (2, 3, 2)  # transient, presentation, local limit
                assert gateway.associations() == {"test": 1}
                first.release()
            with RawPeer(port) as third:
                assert third.associate()[0] == A_ASSOCIATE_AC

    def test_a_peer_that_takes_every_place_gives_way_to_another(
        self, receiver: MemoryReceiver
    ) -> None:
        """Else one broken modality, or a hostile one, keeps all others out."""
        with running_gateway(receiver, max_associations=3) as (gateway, port), ExitStack() as stack:
            greedy = [stack.enter_context(RawPeer(port)) for _ in range(3)]
            for peer in greedy:
                assert peer.associate()[0] == A_ASSOCIATE_AC
            for _ in range(2):  # the second answer shows that the first message is over
                greedy[0].send(STORE + DATA_SET_LAST)
                assert greedy[0].receive_status() == 0
            other = stack.enter_context(RawPeer(port, "127.0.0.2"))
            assert other.associate()[0] == A_ASSOCIATE_AC
            expect_abort(greedy[1])  # the one that was of use longest ago
            assert gateway.associations() == {"test": 3}
            for peer in (greedy[0], greedy[2], other):
                peer.send(STORE + DATA_SET_LAST)
                assert peer.receive_status() == 0

    def test_connections_that_say_nothing_keep_nobody_out(self, receiver: MemoryReceiver) -> None:
        with running_gateway(receiver, max_associations=2) as (_, port), ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(RawPeer(port))
            other = stack.enter_context(RawPeer(port, "127.0.0.2"))
            assert other.associate()[0] == A_ASSOCIATE_AC

    @pytest.mark.parametrize(
        "first",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 500,  # a TLS ClientHello
            STORE,
            pdu(5, b"\0\0\0\0"),
            pdu(1, b"\0\1\0\0"),
            pdu(1, b"\xff" * 500),
            b"\x01\0\xff\xff\xff\xff" + b"\0" * 100,
            associate_rq([], calling=b" " * 16),
            associate_rq([], items=item(0x20, bytes([2, 0, 0, 0]) + item(0x30, b"1.2"))),
        ],
        ids=[
            *("HTTP", "TLS", "P-DATA", "release", "cut short", "noise", "4 GB"),
            *("no calling AE Title", "even context"),
        ],
    )
    def test_whatever_is_no_request_ends_the_connection(
        self, receiver: MemoryReceiver, first: bytes
    ) -> None:
        with running_gateway(receiver) as (_, port):
            with RawPeer(port) as peer:
                peer.send(first)
                expect_abort(peer)
            assert_serves(port)

    def test_a_connection_without_a_word_leaves_nothing(self, receiver: MemoryReceiver) -> None:
        with running_gateway(receiver) as (gateway, port):
            for _ in range(5):
                RawPeer(port).close()
            assert_serves(port)
            assert gateway.associations() == {"test": 0}


def assert_serves(port: int) -> None:
    """C-ECHO over a new association."""
    with RawPeer(port) as peer:
        peer.associate([(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])])
        peer.send(p_data(pdv(1, COMMAND | LAST, echo_rq())))
        assert peer.receive_status() == 0
        peer.release()


class TestMessages:
    def test_an_instance_is_stored_and_answered(self, receiver: MemoryReceiver) -> None:
        with associated(receiver) as peer:
            peer.send(p_data(pdv(1, COMMAND | LAST, store_rq(message_id=77))) + DATA_SET_LAST)
            response = peer.receive_response()
            peer.release()
        assert response[0x0900] == b"\0\0"
        assert response[0x0120] == struct.pack("<H", 77)
        assert response[0x1000].rstrip(b"\0") == b"1.2.3"
        [staging] = receiver.committed
        assert data_set_of(staging.data) == DATA_SET
        assert staging.uids == (CT_IMAGE_STORAGE, "1.2.3")
        assert staging.source.type == "dimse"
        assert staging.source.name == "test"
        assert staging.source.calling_ae_title == "PEER"
        assert staging.source.called_ae_title == "AXIOM"
        assert staging.source.peer_address == "127.0.0.1"

    def test_success_comes_only_after_the_commit(self, receiver: MemoryReceiver) -> None:
        receiver.may_commit.clear()
        with associated(receiver) as peer:
            peer.send(STORE + DATA_SET_LAST)
            assert receiver.written.wait(120)
            peer.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.receive_status()
            peer.socket.settimeout(10)
            receiver.may_commit.set()
            assert peer.receive_status() == 0

    def test_messages_in_one_segment_are_answered_in_their_order(
        self, receiver: MemoryReceiver
    ) -> None:
        """C-ECHO goes another way than C-STORE; neither may overtake the other."""
        echo = p_data(pdv(3, COMMAND | LAST, echo_rq(2)))
        contexts = [
            (CT_IMAGE_STORAGE, [EXPLICIT_VR_LITTLE_ENDIAN]),
            (VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN]),
        ]
        with running_gateway(receiver) as (_, port), RawPeer(port) as peer:
            peer.associate(contexts)
            peer.send(STORE + DATA_SET_LAST + echo + STORE + DATA_SET_LAST + echo)
            fields = [peer.receive_response()[0x0100] for _ in range(4)]
            peer.release()
        assert fields == [b"\x01\x80", b"\x30\x80"] * 2
        assert len(receiver.committed) == 2

    def test_fragments_however_they_are_cut(self, receiver: MemoryReceiver) -> None:
        """A command in three, several PDVs in a PDU, empty ones, one byte at a time."""
        command = store_rq()
        stream = (
            p_data(pdv(1, COMMAND, command[:5]), pdv(1, COMMAND, b""))
            + p_data(pdv(1, COMMAND | LAST, command[5:]), pdv(1, DATA, b""))
            + p_data(*(pdv(1, DATA, DATA_SET[i : i + 1]) for i in range(len(DATA_SET))))
            + p_data(pdv(1, DATA | LAST, b""))
        )
        with associated(receiver) as peer:
            for i in range(0, len(stream), 7):
                peer.send(stream[i : i + 7])
            assert peer.receive_status() == 0
        assert data_set_of(receiver.committed[0].data) == DATA_SET

    def test_a_pdu_larger_than_what_was_offered_is_taken(self, receiver: MemoryReceiver) -> None:
        big = bytes(range(256)) * 12_000
        with associated(receiver, max_pdu_size=16384) as peer:
            peer.send(STORE + p_data(pdv(1, DATA | LAST, big)))
            assert peer.receive_status() == 0
        assert data_set_of(receiver.committed[0].data) == big

    def test_a_request_without_data_set_is_refused_and_the_association_goes_on(
        self, receiver: MemoryReceiver
    ) -> None:
        with associated(receiver) as peer:
            peer.send(p_data(pdv(1, COMMAND | LAST, store_rq(data_set_type=0x0101))))
            assert peer.receive_status() == 0xC000
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0
        assert [e.code for e in receiver.refused] == ["invalid-instance"]

    @pytest.mark.parametrize(
        ("command", "status"),
        [
            (store_rq(sop_class_uid=PRIVATE_SOP_CLASS), 0x0122),
            (store_rq(sop_class_uid=""), 0x0122),
            (store_rq(sop_instance_uid=""), 0x0117),
            (store_rq(sop_instance_uid="1." * 40), 0x0117),
            (store_rq(sop_instance_uid="\n1.2"), 0x0117),
        ],
    )
    def test_a_request_that_names_no_storable_instance_is_refused(
        self, receiver: MemoryReceiver, command: bytes, status: int
    ) -> None:
        with associated(receiver) as peer:
            peer.send(p_data(pdv(1, COMMAND | LAST, command)) + DATA_SET_LAST)
            assert peer.receive_status() == status
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0
        assert len(receiver.refused) == 1
        assert len(receiver.committed) == 1

    def test_unknown_sop_classes_are_stored_by_setting(self, receiver: MemoryReceiver) -> None:
        with (
            running_gateway(receiver, accept_unknown_sop_classes=True) as (_, port),
            RawPeer(port) as peer,
        ):
            peer.associate([(PRIVATE_SOP_CLASS, ["1.2.840.113619.5.2"])])
            command = store_rq(sop_class_uid=PRIVATE_SOP_CLASS)
            peer.send(p_data(pdv(1, COMMAND | LAST, command)) + DATA_SET_LAST)
            assert peer.receive_status() == 0
        assert receiver.committed[0].uids[0] == PRIVATE_SOP_CLASS

    def test_a_cancel_of_nothing_does_no_harm(self, receiver: MemoryReceiver) -> None:
        cancel = command_set({0x0100: b"\xff\x0f", 0x0120: b"\x01\0", 0x0800: b"\x01\x01"})
        with associated(receiver) as peer:
            for _ in range(30):
                peer.send(p_data(pdv(1, COMMAND | LAST, cancel)))
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0
            peer.release()

    def test_a_find_on_a_storage_context_is_aborted(self, receiver: MemoryReceiver) -> None:
        find = command_set(
            {0x0002: b"1.2.840.10008.5.1.4.1.2.2.1\0", 0x0100: b"\x20\0", 0x0110: b"\x01\0"}
            | {0x0700: b"\0\0", 0x0800: b"\x01\0"}
        )
        with associated(receiver) as peer:
            peer.send(p_data(pdv(1, COMMAND | LAST, find)) + DATA_SET_LAST)
            expect_abort(peer)


class TestRefusals:
    @pytest.mark.parametrize(
        ("error", "status", "comment"),
        [
            (SopInstanceMismatchError("SOPInstanceUID", "1.2", "1.3"), 0xA900, b"SOPInstanceUID"),
            (StorageUnavailableError("locked"), 0xA700, b"locked"),
            (RuntimeError("DOE^JOHN"), 0x0110, b"processing failure"),
        ],
    )
    def test_a_failed_commit_is_answered_and_discarded(
        self, receiver: MemoryReceiver, error: Exception, status: int, comment: bytes
    ) -> None:
        receiver.commit_error = error
        with associated(receiver) as peer:
            peer.send(STORE + DATA_SET_LAST)
            response = peer.receive_response()
            assert response[0x0900] == struct.pack("<H", status)
            assert response[0x0902].startswith(comment)
            receiver.commit_error = None
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0
        assert len(receiver.discarded) == 1
        assert len(receiver.committed) == 1

    @pytest.mark.parametrize(
        ("error", "status", "recorded"),
        [
            (InstanceTooLargeError(10), 0xA700, 1),
            (MalformedHeaderError("a length", 300), 0xC000, 1),
            # Not the Instance's fault: it comes again.
            (StorageUnavailableError("disk full"), 0xA700, 0),
        ],
    )
    def test_a_refusal_midway_is_answered_after_the_rest_was_read(
        self, receiver: MemoryReceiver, error: Exception, status: int, recorded: int
    ) -> None:
        with associated(receiver) as peer:
            peer.send(STORE + p_data(pdv(1, DATA, b"x" * 100)))
            assert receiver.written.wait(120)
            receiver.write_error = error
            peer.send(p_data(pdv(1, DATA, b"x" * 100)) * 100 + DATA_SET_LAST)
            assert peer.receive_status() == status
            receiver.write_error = None
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0
        assert len(receiver.refused) == recorded
        assert len(receiver.discarded) == 1
        assert len(receiver.committed) == 1

    def test_an_overload_is_answered_and_over_when_it_is_over(
        self, receiver: MemoryReceiver
    ) -> None:
        receiver.begin_error = OverloadedError("10 MiB are free")
        with associated(receiver) as peer:
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0xA700
            receiver.begin_error = None
            peer.send(STORE + DATA_SET_LAST)
            assert peer.receive_status() == 0


HOSTILE = {
    "a context that was not accepted": (
        p_data(pdv(3, COMMAND | LAST, store_rq())),
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
    ),
    "an even context": (
        p_data(pdv(0, COMMAND | LAST, store_rq())),
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
    ),
    "a data set first": (DATA_SET_LAST, AbortReason.UNEXPECTED_PDU_PARAMETER),
    "a second command in a message": (STORE + STORE, AbortReason.UNEXPECTED_PDU_PARAMETER),
    "another context in a message": (
        STORE + p_data(pdv(3, DATA, b"x")),
        AbortReason.UNEXPECTED_PDU_PARAMETER,
    ),
    "a PDV longer than its PDU": (
        STORE + pdu(P_DATA_TF, struct.pack(">LBB", 10_000_000, 1, 0) + b"x" * 50),
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
    ),
    "an empty P-DATA": (pdu(P_DATA_TF, b""), AbortReason.INVALID_PDU_PARAMETER_VALUE),
    "no Command Set": (
        p_data(pdv(1, COMMAND | LAST, b"\xff" * 40)),
        AbortReason.NOT_SPECIFIED,
    ),
    "a Command Set without end": (
        p_data(pdv(1, COMMAND, b"\0" * 16000)) * 2,
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
    ),
    "an unknown command": (
        p_data(pdv(1, COMMAND | LAST, command_set({0x0100: b"\x99\0", 0x0800: b"\x01\x01"}))),
        AbortReason.NOT_SPECIFIED,
    ),
    "an unknown PDU": (pdu(9, b"\0" * 10), None),
    "a second request": (associate_rq([(CT_IMAGE_STORAGE, [EXPLICIT_VR_LITTLE_ENDIAN])]), None),
    "an unknown PDU within a message": (STORE + pdu(0, b""), None),
    "a release of 4 GB": (b"\x05\0\xff\xff\xff\xff" + b"\0" * 100, None),
}


class TestHostilePeers:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_is_aborted_and_nothing_is_left(self, receiver: MemoryReceiver, name: str) -> None:
        stream, reason = HOSTILE[name]
        with running_gateway(receiver) as (gateway, port):
            with RawPeer(port) as peer:
                peer.associate()
                peer.send(stream)
                expect_abort(peer, reason)
            assert_serves(port)
            assert gateway.associations() == {"test": 0}
        assert receiver.committed == []
        assert len(receiver.discarded) == (STORE in stream)

    @pytest.mark.parametrize(
        "tail",
        [b"", p_data(pdv(1, DATA, b"x" * 1000)), b"\x04\0\xff\xff\xff\xff", b"\x04", b"\x07\0\0"],
    )
    def test_gone_in_the_middle_of_a_message(self, receiver: MemoryReceiver, tail: bytes) -> None:
        with running_gateway(receiver) as (_, port):
            with RawPeer(port) as peer:
                peer.associate()
                peer.send(STORE + tail)
                assert receiver.begun.wait(120)
            assert receiver.was_discarded.wait(120)
        assert receiver.committed == []

    def test_abort_in_the_middle_of_a_message(self, receiver: MemoryReceiver) -> None:
        with associated(receiver) as peer:
            peer.send(STORE + p_data(pdv(1, DATA, b"x")) + pdu(A_ABORT, b"\0\0\0\0"))
            peer.receive_end()
        assert receiver.was_discarded.wait(120)

    def test_release_in_the_middle_of_a_message(self, receiver: MemoryReceiver) -> None:
        with associated(receiver) as peer:
            peer.send(STORE + p_data(pdv(1, DATA, b"x")))
            peer.release()
        assert receiver.was_discarded.wait(120)
        assert receiver.committed == []

    def test_silence_ends_with_an_abort(self, receiver: MemoryReceiver) -> None:
        for begun in (b"", STORE, b"\x04\0\0"):
            with associated(receiver, network_timeout_s=0.2) as peer:
                peer.send(begun)
                expect_abort(peer)
        assert len(receiver.discarded) == 1

    def test_a_trickle_ends_with_an_abort(self, receiver: MemoryReceiver) -> None:
        """Each byte comes in time, all of them together do not: a slow loris holds no place."""
        with associated(receiver, network_timeout_s=0.3) as peer:
            peer.send(STORE + b"\x04\0\0\xff\xff\xff" + struct.pack(">LBB", 0xFFFFFB, 1, DATA))
            ended = threading.Event()

            def trickle() -> None:
                while not ended.wait(0.05):
                    try:
                        peer.send(b"x")
                    except OSError:
                        return

            thread = threading.Thread(target=trickle)
            thread.start()
            try:
                expect_abort(peer)
            finally:
                ended.set()
                thread.join()
        assert len(receiver.discarded) == 1

    def test_four_gigabytes_claimed_cost_nothing(self, receiver: MemoryReceiver) -> None:
        """A PDU's length is a counter; only what came is staged."""
        with associated(receiver) as peer:
            before_kib = _resident_kib()
            claim = b"\x04\0\xff\xff\xff\xff" + struct.pack(">LBB", 0xFFFFFFFB, 1, DATA)
            peer.send(STORE + claim + b"x" * 1000)
            assert receiver.written.wait(120)
            assert _resident_kib() - before_kib < 16 * 1024
        assert receiver.was_discarded.wait(120)

    def test_a_refused_data_set_without_end_is_aborted(
        self, receiver: MemoryReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scp_gateway.storage._MAX_DRAINED_BYTES", 1 << 20)
        receiver.begin_error = OverloadedError("full")
        with associated(receiver) as peer:
            peer.send(STORE)
            peer.send(p_data(pdv(1, DATA, b"x" * 60_000)) * 20)
            expect_abort(peer)


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


class TestListeners:
    def test_stopping_lets_a_begun_request_finish(self, receiver: MemoryReceiver) -> None:
        gateway = Gateway(receiver)
        gateway.apply([listener()])
        port = gateway.ports()["test"]
        with RawPeer(port) as busy, RawPeer(port) as idle:
            busy.associate()
            idle.associate()
            busy.send(STORE)
            assert receiver.begun.wait(120)
            stopping = threading.Thread(target=gateway.stop, args=(10,))
            stopping.start()
            expect_abort(idle)
            idle.close()
            busy.send(DATA_SET_LAST)
            assert busy.receive_status() == 0
            expect_abort(busy)
            busy.close()
            stopping.join(120)
            assert not stopping.is_alive()
        assert len(receiver.committed) == 1
        with pytest.raises(ConnectionRefusedError):
            RawPeer(port)

    def test_stopping_does_not_wait_for_ever(self, receiver: MemoryReceiver) -> None:
        gateway = Gateway(receiver)
        gateway.apply([listener()])
        with RawPeer(gateway.ports()["test"]) as peer:
            peer.associate()
            peer.send(STORE)
            assert receiver.begun.wait(120)
            gateway.stop(0.2)
            expect_abort(peer)
        assert len(receiver.discarded) == 1

    def test_unchanged_listeners_keep_their_associations(self, receiver: MemoryReceiver) -> None:
        gateway = Gateway(receiver)
        one, two = listener(name="one"), listener(name="two")
        gateway.apply([one, two])
        ports = dict(gateway.ports())
        try:
            with RawPeer(ports["one"]) as first, RawPeer(ports["two"]) as second:
                first.associate()
                second.associate()
                gateway.apply([one, listener(name="three")])
                assert gateway.ports()["one"] == ports["one"]
                assert sorted(gateway.ports()) == ["one", "three"]
                expect_abort(second)
                first.send(STORE + DATA_SET_LAST)
                assert first.receive_status() == 0
                assert_serves(gateway.ports()["three"])
        finally:
            gateway.stop(0)

    def test_a_changed_setting_counts_from_the_next_association(
        self, receiver: MemoryReceiver
    ) -> None:
        with running_gateway(receiver) as (gateway, port), RawPeer(port) as first:
            first.associate()
            gateway.apply([listener(allowed_calling_ae_titles=["OTHER"])])
            assert gateway.ports()["test"] == port
            with RawPeer(port) as second:
                assert second.associate()[0] == A_ASSOCIATE_RJ
            first.send(STORE + DATA_SET_LAST)
            assert first.receive_status() == 0

    def test_a_port_in_use_is_reported_and_the_others_listen(
        self, receiver: MemoryReceiver
    ) -> None:
        with running_gateway(receiver) as (_, taken):
            gateway = Gateway(receiver)
            try:
                wanted = [listener(name="blocked", port=taken), listener(name="free")]
                failed = gateway.apply(wanted)
                assert list(failed) == ["blocked"]
                assert str(taken) in failed["blocked"]
                assert_serves(gateway.ports()["free"])
                wanted[0] = listener(name="blocked")
                assert gateway.apply(wanted) == {}
            finally:
                gateway.stop(0)

    def test_a_disabled_listener_does_not_listen(self, receiver: MemoryReceiver) -> None:
        gateway = Gateway(receiver)
        gateway.apply([listener(enabled=False)])
        assert gateway.ports() == {}


def test_associations_end_without_a_trace(receiver: MemoryReceiver) -> None:
    """No thread, no descriptor and no association is left when the peers are gone."""
    descriptors = Path("/proc/self/fd")
    with running_gateway(receiver) as (gateway, port):
        assert_serves(port)
        before = threading.active_count(), len(list(descriptors.iterdir()))
        for ending in ("release", "close", "abort"):
            for _ in range(10):
                with RawPeer(port) as peer:
                    peer.associate()
                    peer.send(STORE + DATA_SET_LAST)
                    assert peer.receive_status() == 0
                    if ending == "release":
                        peer.release()
                    elif ending == "abort":
                        peer.send(pdu(A_ABORT, b"\0\0\0\0"))
        for thread in threading.enumerate():
            if thread.name.startswith("association-"):
                thread.join(120)
        assert gateway.associations() == {"test": 0}
        assert threading.active_count() <= before[0]
        assert len(list(descriptors.iterdir())) <= before[1]


def test_ten_idle_associations_use_no_time(receiver: MemoryReceiver) -> None:
    """Polling reactors, as pynetdicom has them, would: they wake a thousand times a second."""
    others = set(threading.enumerate())
    with running_gateway(receiver) as (_, port):
        peers = [RawPeer(port) for _ in range(10)]
        for peer in peers:
            peer.associate()
        # What threads of other tests do is nothing to this one.
        clocks = [
            time.pthread_getcpuclockid(thread.ident)
            for thread in set(threading.enumerate()) - others
            if thread.ident is not None
        ]
        assert len(clocks) > len(peers)
        began_s = sum(map(time.clock_gettime, clocks))
        time.sleep(0.5)
        assert sum(map(time.clock_gettime, clocks)) - began_s < 0.05
        for peer in peers:
            peer.release()


def test_responses_have_an_even_length(receiver: MemoryReceiver) -> None:
    """PS3.7 6.3.1: every Value of a Command Set has an even length."""
    receiver.commit_error = StorageUnavailableError("odd")
    with associated(receiver) as peer:
        peer.send(STORE + DATA_SET_LAST)
        kind, body = peer.receive_pdu()
    assert kind == P_DATA_TF
    assert all(len(value) % 2 == 0 for value in command_elements(body[6:]).values())
