"""The members of pynetdicom that the gateway leans on and that its authors may move.

A failure here says which part of `scp_gateway` (association, upper_layer, negotiation, connection,
listening) or of `shared/adapters/requestor.py` to look at before another version of pynetdicom may
be used.
"""

from __future__ import annotations

import inspect
import queue
import threading

import pynetdicom
import pytest
from pynetdicom import AE, _config, fsm
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer
from pynetdicom.transport import (
    AddressInformation,
    AssociationServer,
    AssociationSocket,
)

from scp_gateway import construction
from scp_gateway.construction import construct_association, construct_dul


def test_it_is_the_version_that_was_read() -> None:
    assert pynetdicom.__version__ == "3.0.4"


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (DULServiceProvider, "_process_recv_primitive", ["self"]),
        (DULServiceProvider, "_decode_pdu", ["self", "bytestream"]),
        (DULServiceProvider, "send_pdu", ["self", "primitive"]),
        (DULServiceProvider, "receive_pdu", ["self", "wait", "timeout"]),
        (DIMSEServiceProvider, "receive_primitive", ["self", "primitive"]),
        (DIMSEServiceProvider, "get_msg", ["self", "block"]),
        (Association, "_abort_blocking", ["self", "block"]),
        (Association, "_serve_request", ["self", "msg", "context_id"]),
        (Association, "run_reactor", ["self"]),
        (ACSE, "negotiate_association", ["self"]),
        (ACSE, "is_release_requested", ["self"]),
        (ACSE, "is_aborted", ["self", "abort_type"]),
        (ACSE, "send_accept", ["self"]),
        (ACSE, "send_reject", ["self", "result", "source", "diagnostic"]),
        (ACSE, "send_abort", ["self", "source"]),
        (ACSE, "send_release", ["self", "is_response"]),
        (AE, "_create_socket", ["self", "assoc", "address", "tls_args"]),
        (AssociationSocket, "_shutdown_socket", ["self"]),
        (AssociationServer, "get_request", ["self"]),
        (AssociationServer, "server_close", ["self"]),
    ],
)
def test_the_method_is_there(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_an_association_holds_what_is_replaced_in_it() -> None:
    association = Association(AE("X"), MODE_ACCEPTOR)
    assert isinstance(association.dul, DULServiceProvider)
    assert isinstance(association.acse, ACSE)
    assert association._accepted_cx == {}
    assert association._rejected_cx == []
    # Its thread is ours to run.
    assert isinstance(association.run_reactor, type(association.abort))


def test_the_upper_layer_holds_its_queues_timer_and_end() -> None:
    dul = Association(AE("X"), MODE_ACCEPTOR).dul
    for name in ("event_queue", "to_provider_queue", "to_user_queue", "_recv_pdu"):
        assert isinstance(getattr(dul, name), queue.Queue)
    assert isinstance(dul.artim_timer, Timer)
    assert dul.state_machine.current_state == "Sta1"
    dul.kill_dul()
    assert dul._kill_thread


def test_what_we_construct_ourselves_is_what_pynetdicom_constructs() -> None:
    """Our constructors stand in for its own; an attribute that it adds has to be in both."""
    ae = AE("X")
    theirs = Association(ae, MODE_ACCEPTOR)
    ours = Association.__new__(Association)
    construct_association(ours, ae, 16384)
    ours.acse = ACSE(ours)
    ours.dul = DULServiceProvider.__new__(DULServiceProvider)
    construct_dul(ours.dul, ours)
    ours.acse_timeout, ours.network_timeout = theirs.acse_timeout, theirs.network_timeout
    assert _attributes(ours) == _attributes(theirs)
    assert _attributes(ours.dimse) == _attributes(theirs.dimse)
    assert _attributes(ours.requestor) == _attributes(theirs.requestor)
    assert _attributes(ours.acceptor) == _attributes(theirs.acceptor)
    assert _attributes(ours.dul) == {
        name: kind
        for name, kind in _attributes(theirs.dul).items()
        if name not in vars(threading.Thread())
    }
    ours.acceptor.implementation_version_name = ae.implementation_version_name
    theirs.acceptor.implementation_version_name = ae.implementation_version_name
    theirs.acceptor.maximum_length = 16384
    for name in ("maximum_length", "implementation_class_uid", "implementation_version_name"):
        assert getattr(ours.acceptor, name) == getattr(theirs.acceptor, name)
    assert ours.acceptor.supported_contexts == theirs.acceptor.supported_contexts
    assert [*ours.get_events()] == [*theirs.get_events()]


def _attributes(thing: object) -> dict[str, type]:
    return {
        name: queue.Queue if isinstance(value, queue.Queue) else _plain(type(value))
        for name, value in vars(thing).items()
    }


def _plain(kind: type) -> type:
    """pynetdicom's own class where ours is made of it."""
    return kind.__mro__[1] if kind.__module__ == construction.__name__ else kind


def test_a_context_has_the_roles_that_negotiation_sets() -> None:
    context = PresentationContext()
    assert context._as_scu is None
    assert context._as_scp is None


def test_an_address_keeps_what_its_setter_finds() -> None:
    """The gateway's own setter looks nothing up."""
    found = AddressInformation.from_tuple(("127.0.0.1", 104))
    assert found._addr == found.address == "127.0.0.1"
    assert isinstance(inspect.getattr_static(AddressInformation, "address"), property)


def test_logging_of_every_pdu_can_be_switched_off() -> None:
    assert hasattr(_config, "LOG_HANDLER_LEVEL")


@pytest.mark.parametrize(
    ("event", "state", "action"),
    [
        # By the type of the PDU alone: these actions take nothing from the queue of decoded PDUs.
        ("Evt3", "Sta2", "AA-1"),
        ("Evt10", "Sta2", "AA-1"),
        ("Evt12", "Sta2", "AA-1"),
        ("Evt16", "Sta2", "AA-2"),
        ("Evt3", "Sta6", "AA-8"),
        ("Evt6", "Sta6", "AA-8"),
        ("Evt13", "Sta6", "AA-8"),
        ("Evt19", "Sta6", "AA-8"),
        # These take the decoded PDU.
        ("Evt6", "Sta2", "AE-6"),
        ("Evt12", "Sta6", "AR-2"),
        ("Evt16", "Sta6", "AA-3"),
        # The way out.
        ("Evt14", "Sta8", "AR-4"),
        ("Evt15", "Sta6", "AA-1"),
        ("Evt17", "Sta13", "AR-5"),
        ("Evt18", "Sta13", "AA-2"),
    ],
)
def test_the_state_machine_is_that_of_ps38(event: str, state: str, action: str) -> None:
    assert fsm.TRANSITION_TABLE[event, state] == action


@pytest.mark.parametrize("action", [fsm.AA_1, fsm.AA_2, fsm.AA_8])
def test_what_acts_on_a_type_alone_reads_no_decoded_pdu(action: object) -> None:
    assert callable(action)
    assert "_recv_pdu" not in inspect.getsource(action)
