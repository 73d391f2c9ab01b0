"""Which services a listener has: each may be off, and is refused when it is negotiated then."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from scp_gateway.dimse_status import Status
from scp_gateway.gateway import Gateway
from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from tests.embedded_system import System
from tests.gateway import (
    COMMAND,
    CT_IMAGE_STORAGE,
    DATA,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    VERIFICATION,
    RawPeer,
    accepted_syntaxes,
    item,
    listener,
    p_data,
    pdv,
    store_rq,
)
from tests.unit.test_gateway_query_retrieve import ScriptedArchives

GET = "1.2.840.10008.5.1.4.1.2.2.3"
SERVICES = {
    "storage": CT_IMAGE_STORAGE,
    "storage_commitment": STORAGE_COMMITMENT_PUSH_MODEL,
    "verification": VERIFICATION,
}
ACCEPTED, NOT_SUPPORTED = 0, 3


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path / "home")


@pytest.mark.parametrize("off", [(), *[(name,) for name in SERVICES], tuple(SERVICES)])
def test_a_service_that_is_off_is_refused_and_the_others_are_not(
    system: System, off: tuple[str, ...]
) -> None:
    gateway = Gateway(system.ports.receiver, system.ports.commitments)
    gateway.apply([listener(**dict.fromkeys(off, False))])
    try:
        with RawPeer(gateway.ports()["test"]) as peer:
            _, body = peer.associate([(u, [IMPLICIT_VR_LITTLE_ENDIAN]) for u in SERVICES.values()])
            results = [result for _, (result, _) in sorted(accepted_syntaxes(body).items())]
    finally:
        gateway.stop(0)
    assert results == [NOT_SUPPORTED if name in off else ACCEPTED for name in SERVICES]


def test_what_c_get_sends_is_taken_where_nothing_is_stored(system: System) -> None:
    """Its contexts are those of storage: who asks is SCP there, and may not store with them."""
    archives = ScriptedArchives(lambda: iter(()))
    gateway = Gateway(system.ports.receiver, archives=archives)
    gateway.apply([listener(storage=False, query_retrieve={"store": "archive"})])
    contexts = [
        (CT_IMAGE_STORAGE, [IMPLICIT_VR_LITTLE_ENDIAN]),
        (GET, [IMPLICIT_VR_LITTLE_ENDIAN]),
    ]
    try:
        with RawPeer(gateway.ports()["test"]) as peer:
            # Role selection (PS3.7 D.3.3.4): SCU and SCP.
            uid = CT_IMAGE_STORAGE.encode()
            role = item(0x54, struct.pack(">H", len(uid)) + uid + b"\1\1")
            _, body = peer.associate(contexts, user_items=role)
            assert [result for result, _ in accepted_syntaxes(body).values()] == [0, 0]
            peer.send(p_data(pdv(1, COMMAND | LAST, store_rq())))
            peer.send(p_data(pdv(1, DATA | LAST, b"\x08\0\x18\0UI\x06\x001.2.3\0" * 20)))
            assert peer.receive_status() == Status.SOP_CLASS_NOT_SUPPORTED
    finally:
        gateway.stop(0)
    assert system.ports.documents.count("instances") == 0
