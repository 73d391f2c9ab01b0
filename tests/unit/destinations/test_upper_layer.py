"""The Upper Layer's bytes: what pynetdicom reads in ours, and what we make of anybody's."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, A_RELEASE_RP, A_RELEASE_RQ

from shared.adapters.destinations import responses, upper_layer
from shared.adapters.destinations.upper_layer import Context, ProtocolError
from shared.dicom import command_set
from tests.unit.destinations.scripted_scp import Exchange, accept_pdu, response_pdu

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
UIDS = st.from_regex(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,5}", fullmatch=True)


@given(st.lists(st.builds(Context, UIDS, UIDS), min_size=1, max_size=upper_layer.MAX_CONTEXTS))
def test_pynetdicom_reads_what_we_propose(contexts: list[Context]) -> None:
    request = A_ASSOCIATE_RQ()
    request.decode(upper_layer.associate_request("CALLED", "CALLING", contexts, 131072))
    assert request.called_ae_title.strip() == "CALLED"
    assert request.calling_ae_title.strip() == "CALLING"
    assert [
        Context(str(item.abstract_syntax), str(item.transfer_syntax[0]))
        for item in request.presentation_context
    ] == contexts
    numbers = [item.context_id for item in request.presentation_context]
    assert numbers == list(range(1, 2 * len(contexts), 2))  # odd, 255 at most (PS3.8 9.3.2.2)
    assert request.user_information is not None
    assert request.user_information.maximum_length == 131072


def test_the_release_and_abort_pdus_are_those_of_pynetdicom() -> None:
    A_RELEASE_RQ().decode(upper_layer.RELEASE_RQ)
    A_RELEASE_RP().decode(upper_layer.RELEASE_RP)
    abort = A_ABORT_RQ()
    abort.decode(upper_layer.ABORT)
    assert abort.source == 0


@pytest.mark.parametrize("max_pdu", [0, 4096, 131072])
def test_accepted_contexts_and_the_limit_are_read(max_pdu: int) -> None:
    contexts = [Context(CT, EXPLICIT_VR_LITTLE_ENDIAN), Context("1.2.3", "1.2.840.10008.1.2")]
    request = A_ASSOCIATE_RQ()
    request.decode(upper_layer.associate_request("A", "B", contexts, 0))
    accepted = upper_layer.parse_associate_accept(accept_pdu(request, max_pdu, ("1.2.3",))[6:])
    assert accepted.transfer_syntaxes == {1: EXPLICIT_VR_LITTLE_ENDIAN}
    assert accepted.max_pdu_size == max_pdu
    assert accepted.implementation == "SCRIPT"


def test_a_response_is_read_with_the_words_of_the_peer() -> None:
    exchange = Exchange(command_set.store_request(7, CT, "1.2.3"), b"", 1, [])
    pdu = response_pdu(exchange, 0xC001, "no such patient")
    ((number, control, fragment),) = upper_layer.pdvs(pdu[6:])
    assert (number, control) == (1, upper_layer.COMMAND | upper_layer.LAST)
    response = responses.parse_response(fragment, command_set.C_STORE_RQ, 7)
    assert (response.status, response.words) == (0xC001, "no such patient")
    assert not response.has_data_set


@pytest.mark.parametrize(("request_field", "message_id"), [(command_set.C_ECHO_RQ, 7), (1, 8)])
def test_a_response_to_something_else_is_refused(request_field: int, message_id: int) -> None:
    """Taking another message's Success for ours would lose an Instance."""
    exchange = Exchange(command_set.store_request(7, CT, "1.2.3"), b"", 1, [])
    ((_, _, fragment),) = upper_layer.pdvs(response_pdu(exchange, 0)[6:])
    with pytest.raises(ProtocolError):
        responses.parse_response(fragment, request_field, message_id)


def test_offending_tags_and_error_id_are_told() -> None:
    command = b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value
        for number, value in {
            0x0100: b"\x01\x80",
            0x0120: b"\x01\x00",
            0x0800: b"\x01\x01",
            0x0900: b"\x00\xa9",
            0x0901: struct.pack("<HHHH", 0x0010, 0x0020, 0x0008, 0x0018),
            0x0903: b"\x2a\x00",
        }.items()
    )
    response = responses.parse_response(command, command_set.C_STORE_RQ, 1)
    assert response.words == "error 42, offending (0010,0020) (0008,0018)"


@given(st.binary(max_size=300))
def test_whatever_a_peer_sends_is_read_or_refused(data: bytes) -> None:
    for read in (
        upper_layer.parse_associate_accept,
        upper_layer.parse_associate_reject,
        upper_layer.abort_reason,
        lambda body: list(upper_layer.pdvs(body)),
        lambda body: responses.parse_response(body, command_set.C_STORE_RQ, 1),
    ):
        with suppress(ProtocolError):
            read(data)
