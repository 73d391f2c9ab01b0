"""Delivery by C-STORE: to peers that behave, and to those that do not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pynetdicom import AE, evt

from shared.adapters.destinations.association import Association, Peer
from shared.adapters.destinations.association_pool import AssociationPool
from shared.adapters.destinations.dimse import StorageScpDestination
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
    PermanentError,
)
from tests.data import build
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.scripted_scp import Connection, Script, ScriptedScp, stores

if TYPE_CHECKING:
    from tests.peers import OrthancPeer, StartStorescp

pytest_plugins = ("tests.peers",)

LOOPBACK = "127.0.0.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
TIMEOUT_S = 3.0

Make = Callable[..., StorageScpDestination]


@pytest.fixture
def destination() -> Iterator[Make]:
    """Make destinations that are closed when the test ends."""
    made: list[StorageScpDestination] = []

    def make(
        port: int,
        ae_title: str = "ANY",
        *,
        timeout_s: float = TIMEOUT_S,
        max_pdu_size: int = 131072,
        **pool_settings: float,
    ) -> StorageScpDestination:
        peer = Peer(LOOPBACK, port, ae_title, "AXIOM", max_pdu_size, timeout_s)
        pool = AssociationPool(
            lambda _, contexts, within_s: Association(peer, contexts, accept_within_s=within_s),
            **{"wait_s": timeout_s, **pool_settings},
        )
        made.append(
            StorageScpDestination(
                "pacs",
                host=LOOPBACK,
                port=port,
                called_ae_title=ae_title,
                calling_ae_title="AXIOM",
                timeout_s=timeout_s,
                pool=pool,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def data_set(part10: bytes, instance: OutgoingInstance) -> bytes:
    return part10[instance.header.meta_end :]


# ---- peers that behave ----------------------------------------------------------------------


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("fork", [False, True])
def test_storescp_gets_the_edited_header_and_the_received_pixels(
    storescp: StartStorescp, destination: Make, tmp_path: Path, fork: bool
) -> None:
    peer = storescp(fork=fork)
    received, edited = build.ct(128, 128), build.ct(128, 128, patient_id="SOMEBODY-ELSE")
    instance = outgoing(tmp_path, received, edited)
    assert destination(peer.port, peer.ae_title).deliver(instance) == "0000H"
    stored = peer.file(instance.sop_instance_uid).read_bytes()
    assert stored.endswith(data_set(edited, instance))


@pytest.mark.peer("dcmtk")
def test_one_storescp_association_takes_many_kinds_of_instances(
    storescp: StartStorescp, destination: Make, tmp_path: Path
) -> None:
    """A single-process storescp serves nobody else while it serves us: no second association."""
    peer = storescp()
    files = [
        build.ct(),
        build.mr(),
        build.compressed(),
        build.pydicom_file("image_dfl.dcm"),
        build.pydicom_file("MR_small_bigendian.dcm"),
        build.pydicom_file("JPEG2000.dcm"),
        build.pydicom_file("rtplan.dcm"),
        build.ct(instance="again"),
    ]
    delivery = destination(peer.port, peer.ae_title)
    for file in files:
        instance = outgoing(tmp_path, file)
        assert delivery.deliver(instance) == "0000H"
        stored = peer.file(instance.sop_instance_uid).read_bytes()
        assert stored.rstrip(b"\0").endswith(data_set(file, instance).rstrip(b"\0"))
    assert delivery.check() == "C-ECHO 0000H"


@pytest.mark.peer("dcmtk")
def test_an_edited_deflated_instance_arrives_deflated(
    storescp: StartStorescp, destination: Make, tmp_path: Path
) -> None:
    peer = storescp()
    received = build.ct(transfer_syntax_uid=DEFLATED)
    edited = build.ct(patient_id="X", transfer_syntax_uid=DEFLATED)
    instance = outgoing(tmp_path, received, edited)
    assert destination(peer.port, peer.ae_title).deliver(instance) == "0000H"
    stored = peer.file(instance.sop_instance_uid).read_bytes()
    assert stored.endswith(b"".join(chunks(instance.data_set_parts())))


@pytest.mark.peer("dcmtk")
def test_threads_share_a_peer_that_serves_one_association_at_a_time(
    storescp: StartStorescp, destination: Make, tmp_path: Path
) -> None:
    peer = storescp()
    delivery = destination(peer.port, peer.ae_title, timeout_s=20, another_within_s=0.3)
    answers: list[str] = []

    def deliver(thread: int) -> None:
        folder = tmp_path / f"thread-{thread}"
        folder.mkdir()
        for number in range(5):
            file = build.ct(instance=f"{thread}.{number}")
            answers.append(delivery.deliver(outgoing(folder, file)))

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["0000H"] * 20
    assert len(peer.files()) == 20


@pytest.mark.peer("orthanc")
def test_orthanc_stores_the_same_pixels(
    orthanc: OrthancPeer, destination: Make, tmp_path: Path
) -> None:
    """Of what comes by C-STORE it writes the Header anew."""
    edited = build.ct(128, 128, patient_id="SOMEBODY-ELSE")
    instance = outgoing(tmp_path, build.ct(128, 128), edited)
    delivery = destination(orthanc.port, orthanc.ae_title)
    assert delivery.deliver(instance) == "0000H"
    stored = orthanc.file(instance.sop_instance_uid)
    assert stored.endswith(edited[instance.header.body_offset :])
    assert b"SOMEBODY-ELSE" in stored
    assert delivery.check() == "C-ECHO 0000H"


def test_pynetdicom_gets_the_same_bytes(destination: Make, tmp_path: Path) -> None:
    stored: list[bytes] = []

    def store(event: evt.Event) -> int:
        stored.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    ae = AE("PYNETDICOM")
    ae.require_called_aet = True
    ae.maximum_pdu_size = 5000
    ae.add_supported_context(build.CT_IMAGE_STORAGE, build.EXPLICIT_VR_LITTLE_ENDIAN)
    server = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        assert server.socket is not None
        port = server.socket.getsockname()[1]
        edited = build.ct(64, 64, patient_id="SOMEBODY-ELSE")
        instance = outgoing(tmp_path, build.ct(64, 64), edited)
        delivery = destination(port, "PYNETDICOM")
        assert delivery.deliver(instance) == "0000H"
        assert stored == [data_set(edited, instance)]
        assert "not supported" in destination(port, "PYNETDICOM").check()
        with pytest.raises(DestinationRefusedError, match="not accepted"):
            delivery.deliver(outgoing(tmp_path, build.mr()))
        with pytest.raises(DestinationMisconfiguredError, match="called AE Title"):
            destination(port, "SOMEBODY").check()
        delivery.close()
    finally:
        server.shutdown()


@pytest.mark.parametrize("max_pdu", [4096, 4097, 128, 7 + 6, 16384, 131072, 0])
@pytest.mark.parametrize("has_descriptor", [True, False])
def test_pdus_keep_to_the_limit_of_the_peer(
    destination: Make, tmp_path: Path, max_pdu: int, has_descriptor: bool
) -> None:
    received, edited = build.ct(64, 64), build.ct(64, 64, patient_id="OTHER")
    instance = outgoing(tmp_path, received, edited, has_descriptor=has_descriptor)
    with ScriptedScp(stores(max_pdu=max_pdu)) as scp:
        assert destination(scp.port).deliver(instance) == "0000H"
        (exchange,) = scp.stored
    assert exchange.data_set == data_set(edited, instance)
    if max_pdu:
        assert max(exchange.pdu_lengths) <= max_pdu
    assert all(length % 2 == 0 for length in exchange.pdu_lengths)


def test_an_association_is_kept_for_the_next_instance(destination: Make, tmp_path: Path) -> None:
    with ScriptedScp(stores()) as scp:
        delivery = destination(scp.port)
        for number in range(5):
            delivery.deliver(outgoing(tmp_path, build.ct(instance=str(number))))
        assert len(scp.connections) == 1
        assert [exchange.message_id for exchange in scp.stored] == [1, 2, 3, 4, 5]


def test_kinds_seen_before_are_proposed_together(destination: Make, tmp_path: Path) -> None:
    """Two associations for two kinds, however often they alternate."""
    with ScriptedScp(stores()) as scp:
        delivery = destination(scp.port)
        for number in range(10):
            make = build.ct if number % 2 else build.mr
            delivery.deliver(outgoing(tmp_path, make(instance=str(number))))
        assert len(scp.connections) == 2


def test_an_idle_association_is_released(destination: Make, tmp_path: Path) -> None:
    released = threading.Event()

    def script(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store())
        kind, _ = connection.read_pdu()
        if kind == 5:
            connection.socket.sendall(struct.pack(">BxL4x", 6, 4))
            released.set()

    with ScriptedScp(script) as scp:
        destination(scp.port, idle_s=0.05).deliver(outgoing(tmp_path, build.ct()))
        assert released.wait(120)


def test_close_releases_what_is_idle(destination: Make, tmp_path: Path) -> None:
    released = threading.Event()

    def script(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store())
        if connection.read_pdu()[0] == 5:
            released.set()

    with ScriptedScp(script) as scp:
        delivery = destination(scp.port)
        delivery.deliver(outgoing(tmp_path, build.ct()))
        delivery.close()
        assert released.wait(120)
        with pytest.raises(DestinationUnavailableError, match="configured anew"):
            delivery.deliver(outgoing(tmp_path, build.ct()))


# ---- what the peer answers ------------------------------------------------------------------


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_success_and_is_mentioned(
    destination: Make, tmp_path: Path, status: int
) -> None:
    with ScriptedScp(stores(status, "as told")) as scp:
        answer = destination(scp.port).deliver(outgoing(tmp_path, build.ct()))
    assert f"{status:04X}H" in answer
    assert "as told" in answer


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213, 0xFE00])
def test_a_peer_that_cannot_now_is_tried_again(
    destination: Make, tmp_path: Path, status: int
) -> None:
    with (
        ScriptedScp(stores(status, "disk full")) as scp,
        pytest.raises(DestinationUnavailableError, match=f"{status:04X}H, disk full"),
    ):
        destination(scp.port).deliver(outgoing(tmp_path, build.ct()))


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xCFFF, 0x0122, 0x0124, 0x0117, 0xFF00])
def test_a_peer_that_will_not_take_it_is_left_alone(
    destination: Make, tmp_path: Path, status: int
) -> None:
    with (
        ScriptedScp(stores(status, "no such thing")) as scp,
        pytest.raises(DestinationRefusedError, match=f"{status:04X}H, no such thing"),
    ):
        destination(scp.port).deliver(outgoing(tmp_path, build.ct()))


def test_a_duplicate_is_a_conflict(destination: Make, tmp_path: Path) -> None:
    with ScriptedScp(stores(0x0111)) as scp, pytest.raises(InstanceConflictError) as caught:
        destination(scp.port).deliver(outgoing(tmp_path, build.ct()))
    assert caught.value.args[0] == build.uid("ct-1")


def test_a_duplicate_of_what_we_may_have_stored_is_success(
    destination: Make, tmp_path: Path
) -> None:
    """The peer stored it, and its answer was lost: the second attempt finds the first."""
    instance = replace(outgoing(tmp_path, build.ct()), redelivery=True)
    with ScriptedScp(stores(0x0111)) as scp:
        assert destination(scp.port).deliver(instance).startswith("0111H")


def test_whether_a_failed_instance_may_be_stored_is_told(destination: Make, tmp_path: Path) -> None:
    def lost(connection: Connection) -> None:
        connection.accept()
        connection.read_store()

    instance = outgoing(tmp_path, build.ct())
    with ScriptedScp(lost) as scp:
        port = scp.port
        with pytest.raises(DestinationUnavailableError) as after_sending:
            destination(port).deliver(instance)
    with pytest.raises(DestinationUnavailableError) as no_connection:
        destination(port).deliver(instance)
    with (
        ScriptedScp(stores(0xA700)) as scp,
        pytest.raises(DestinationUnavailableError) as refused,
    ):
        destination(scp.port).deliver(instance)
    told = [caught.value.may_be_stored for caught in (after_sending, no_connection, refused)]
    assert told == [True, False, False]


def test_a_failure_does_not_cost_the_association(destination: Make, tmp_path: Path) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store(), 0xC000)
        connection.answer(connection.read_store())

    with ScriptedScp(script) as scp:
        delivery = destination(scp.port)
        with pytest.raises(DestinationRefusedError):
            delivery.deliver(outgoing(tmp_path, build.ct()))
        assert delivery.deliver(outgoing(tmp_path, build.ct())) == "0000H"
        assert len(scp.connections) == 1


# ---- what the peer does not accept ----------------------------------------------------------


def rejects(result: int, source: int, reason: int) -> Script:
    def script(connection: Connection) -> None:
        connection.read_pdu()
        connection.socket.sendall(struct.pack(">BxLxBBB", 3, 4, result, source, reason))

    return script


@pytest.mark.parametrize(
    ("rejection", "error"),
    [
        ((1, 1, 3), DestinationMisconfiguredError),
        ((1, 1, 7), DestinationMisconfiguredError),
        ((1, 1, 1), DestinationRefusedError),
        ((2, 1, 1), DestinationUnavailableError),
        ((2, 3, 2), DestinationUnavailableError),
        ((1, 3, 1), DestinationUnavailableError),
        ((1, 9, 9), DestinationRefusedError),
    ],
)
def test_a_rejected_association_says_why(
    destination: Make, tmp_path: Path, rejection: tuple[int, int, int], error: type[Exception]
) -> None:
    with ScriptedScp(rejects(*rejection)) as scp, pytest.raises(error, match="rejected") as raised:
        destination(scp.port).deliver(outgoing(tmp_path, build.ct()))
    if isinstance(raised.value, PermanentError):
        assert raised.value.refuses_all


def test_a_refused_kind_does_not_hold_up_the_others(destination: Make, tmp_path: Path) -> None:
    def script(connection: Connection) -> None:
        connection.accept(refuse=(build.MR_IMAGE_STORAGE,))
        while True:
            connection.answer(connection.read_store())

    with ScriptedScp(script) as scp:
        delivery = destination(scp.port)
        delivery.deliver(outgoing(tmp_path, build.ct()))
        for number in range(3):
            with pytest.raises(DestinationRefusedError, match="not accepted") as refused:
                delivery.deliver(outgoing(tmp_path, build.mr(instance=str(number))))
            syntax = build.EXPLICIT_VR_LITTLE_ENDIAN
            assert f"{build.MR_IMAGE_STORAGE} in {syntax}" in str(refused.value)
            assert "transcode_when_refused" in refused.value.hint
            delivery.deliver(outgoing(tmp_path, build.ct(instance=str(number))))


def test_nobody_listens(destination: Make, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))  # and not listening
        with pytest.raises(DestinationUnavailableError, match="refused"):
            destination(taken.getsockname()[1]).deliver(outgoing(tmp_path, build.ct()))


def test_an_unknown_host_may_be_known_later(tmp_path: Path) -> None:
    delivery = StorageScpDestination(
        "pacs", host="no-such-host.invalid", port=104, called_ae_title="A", calling_ae_title="B"
    )
    with pytest.raises(DestinationUnavailableError, match="host name"):
        delivery.check()


# ---- peers that break off -------------------------------------------------------------------


def accepts_then(act: Callable[[Connection], None]) -> Script:
    def script(connection: Connection) -> None:
        connection.accept()
        act(connection)

    return script


def stores_then(act: Callable[[Connection], None]) -> Script:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_store()
        act(connection)

    return script


def hang(connection: Connection) -> None:
    connection.read_exactly(1 << 30)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (stores_then(lambda c: c.abort()), "aborted by its application"),
        (stores_then(lambda c: c.abort(2, 2)), "aborted unexpected PDU"),
        (stores_then(lambda c: None), "closed the connection"),
        (stores_then(lambda c: c.socket.sendall(b"\4\0\0\0")), "closed the connection"),
        (stores_then(lambda c: c.socket.sendall(b"HTTP/1.1 400 Bad\r\n")), "protocol"),
        (stores_then(lambda c: c.socket.sendall(b"\4\0\xff\xff\xff\xff")), "protocol"),
        (stores_then(lambda c: c.socket.sendall(struct.pack(">BxL4x", 5, 4))), "released"),
        (stores_then(hang), "no answer in time"),
        (accepts_then(lambda c: c.abort()), "aborted|connection lost"),
        (lambda c: c.abort(), "aborted"),
        (lambda c: c.socket.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "protocol|connection"),
        (hang, "no answer in time"),
    ],
)
def test_a_peer_that_breaks_off_is_tried_again(
    destination: Make, tmp_path: Path, script: Script, words: str
) -> None:
    with ScriptedScp(script) as scp, pytest.raises(DestinationUnavailableError, match=words):
        destination(scp.port, timeout_s=0.5).deliver(outgoing(tmp_path, build.ct(256, 256)))


def test_a_data_set_of_odd_length_is_sent_but_not_for_ever(
    destination: Make, tmp_path: Path
) -> None:
    """Files are cut short in the middle of a word. Some peers take that; dcmtk always aborts."""
    instance = outgoing(tmp_path, build.ct() + b"\0")
    with ScriptedScp(stores()) as scp:
        assert destination(scp.port).deliver(instance) == "0000H"
    with (
        ScriptedScp(stores_then(lambda c: c.abort())) as scp,
        pytest.raises(DestinationRefusedError, match="odd number of bytes"),
    ):
        destination(scp.port).deliver(instance)


def test_a_peer_that_stops_reading_is_not_waited_for(destination: Make, tmp_path: Path) -> None:
    """Its window is full long before 8 MB are out, and sendfile(2) must not wait for ever."""
    wait = threading.Event()

    def script(connection: Connection) -> None:
        connection.accept()
        wait.wait(20)

    with ScriptedScp(script) as scp:
        with pytest.raises(DestinationUnavailableError, match="no answer in time"):
            destination(scp.port, timeout_s=0.5).deliver(outgoing(tmp_path, build.ct(2048, 2048)))
        wait.set()


def test_an_answer_that_trickles_in_is_not_waited_for(destination: Make, tmp_path: Path) -> None:
    stop = threading.Event()

    def trickle(connection: Connection) -> None:
        for _ in range(100):
            connection.socket.sendall(b"\4" if not stop.is_set() else b"")
            if stop.wait(0.2):
                return

    with ScriptedScp(stores_then(trickle)) as scp:
        with pytest.raises(DestinationUnavailableError):
            destination(scp.port, timeout_s=0.5).deliver(outgoing(tmp_path, build.ct()))
        stop.set()


@pytest.mark.parametrize(
    "farewell", [b"", struct.pack(">BxL4x", 5, 4), struct.pack(">BxL4x", 7, 4)]
)
def test_an_association_that_the_peer_ended_while_idle_is_replaced(
    destination: Make, tmp_path: Path, farewell: bytes
) -> None:
    ended = threading.Event()

    def once(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store())
        connection.socket.sendall(farewell)
        connection.socket.close()
        ended.set()

    with ScriptedScp(once, stores()) as scp:
        delivery = destination(scp.port)
        delivery.deliver(outgoing(tmp_path, build.ct()))
        assert ended.wait(120)
        assert delivery.deliver(outgoing(tmp_path, build.ct(instance="next"))) == "0000H"
        assert len(scp.connections) == 2


def test_an_association_that_dies_when_taken_up_again_is_replaced_at_once(
    destination: Make, tmp_path: Path
) -> None:
    """The peer's farewell and our next request may cross on the wire."""

    def once(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store())
        connection.read_exactly(10)

    with ScriptedScp(once, stores()) as scp:
        delivery = destination(scp.port)
        delivery.deliver(outgoing(tmp_path, build.ct()))
        assert delivery.deliver(outgoing(tmp_path, build.ct(instance="next"))) == "0000H"


def test_an_early_refusal_is_heard_even_if_the_peer_stops_reading(
    destination: Make, tmp_path: Path
) -> None:
    """A full peer may answer A700H before it has read 8 MB, and close."""

    def script(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store_request(), 0xA700, "full")
        connection.read_exactly(64 << 20)

    with (
        ScriptedScp(script) as scp,
        pytest.raises(DestinationUnavailableError, match="A700H, full"),
    ):
        destination(scp.port).deliver(outgoing(tmp_path, build.ct(512, 512)))


def test_success_for_half_an_instance_is_not_believed(destination: Make, tmp_path: Path) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.answer(connection.read_store_request(), 0x0000)
        connection.read_exactly(1 << 20)
        connection.socket.shutdown(socket.SHUT_RDWR)
        connection.socket.close()

    with ScriptedScp(script) as scp, pytest.raises(DestinationUnavailableError):
        destination(scp.port, timeout_s=1).deliver(outgoing(tmp_path, build.ct(2048, 2048)))


def test_a_peer_that_says_later_to_a_second_association_gets_one_at_a_time(
    destination: Make, tmp_path: Path
) -> None:
    busy = rejects(2, 3, 2)
    with ScriptedScp(stores(), busy) as scp:
        delivery = destination(scp.port)
        answers: list[str] = []

        def deliver(number: int) -> None:
            folder = tmp_path / str(number)
            folder.mkdir()
            answers.append(delivery.deliver(outgoing(folder, build.ct(instance=str(number)))))

        threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == ["0000H"] * 4


# ---- C-ECHO ---------------------------------------------------------------------------------


@pytest.mark.peer("dcmtk")
def test_check_is_an_echo(storescp: StartStorescp, destination: Make) -> None:
    peer = storescp()
    assert destination(peer.port, peer.ae_title).check() == "C-ECHO 0000H"


def test_a_peer_without_verification_is_there_too(destination: Make) -> None:
    def script(connection: Connection) -> None:
        connection.accept(refuse=("1.2.840.10008.1.1",))
        connection.read_pdu()

    with ScriptedScp(script) as scp:
        assert "not supported" in destination(scp.port).check()
