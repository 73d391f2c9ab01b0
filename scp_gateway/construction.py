"""pynetdicom's objects of an association, made without what one thread of an acceptor never uses.

pynetdicom's own constructors make each association an upper layer that is replaced at once, two
threads, five queues with four locks each, and User Information items that are the same for all:
together a quarter of what an association costs. Here the same attributes get the same values;
`tests/unit/test_gateway_pynetdicom.py` holds them against those that pynetdicom sets.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from pynetdicom import AE, _config
from pynetdicom._globals import MODE_ACCEPTOR, MODE_REQUESTOR
from pynetdicom.association import Association, ServiceUser
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import (
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.timer import Timer

T = TypeVar("T")


class OneThreadQueue(queue.Queue[T]):
    """A queue of one thread, which could wait for ever: what is empty says so at once."""

    def __init__(self) -> None:
        self.maxsize = 0
        self.queue: deque[T] = deque()

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append; there is always room."""
        self.queue.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the first one. Raises: queue.Empty, never waits."""
        if not self.queue:
            raise queue.Empty
        return self.queue.popleft()

    def empty(self) -> bool:
        """True if there is nothing to take."""
        return not self.queue

    def qsize(self) -> int:
        """How many there are to take."""
        return len(self.queue)


def construct_association(association: Association, ae: AE, max_pdu_size: int) -> None:
    """In place of `Association.__init__`, for an acceptor; the caller sets `acse` and `dul`."""
    association._ae = ae
    association._mode = MODE_ACCEPTOR
    association._server = None
    association.requestor = _User(association, MODE_REQUESTOR, ())
    association.acceptor = _User(association, MODE_ACCEPTOR, _our_information(ae, max_pdu_size))
    association.is_established = association.is_rejected = False
    association.is_aborted = association.is_released = False
    association._sent_abort = association._sent_release = False
    association._accepted_cx, association._rejected_cx = {}, []
    association.dimse = _Dimse(association)
    association.connection_timeout = ae.connection_timeout
    association._dimse_timeout = ae.dimse_timeout
    association.network_timeout_response = "A-ABORT"
    association._handlers = dict(_default_handlers())
    association._kill = association._started_dul = association._is_paused = False
    association._dul_ready = association._reactor_checkpoint = _checkpoint()
    association._timer_resolution = _config.WINDOWS_TIMER_RESOLUTION
    threading.Thread.__init__(association, target=association.run_reactor, daemon=True)


def construct_dul(dul: DULServiceProvider, association: Association) -> None:
    """In place of `DULServiceProvider.__init__`: it is no thread."""
    dul._assoc, dul.socket = association, None
    dul.event_queue = OneThreadQueue()
    dul.to_provider_queue = OneThreadQueue()
    dul.to_user_queue = OneThreadQueue()
    dul._recv_pdu = OneThreadQueue()
    dul._idle_timer, dul.artim_timer = Timer(60), Timer(30)
    dul.state_machine = StateMachine(dul)
    dul._run_loop_delay = 0.001
    dul._kill_thread = False


class _User(ServiceUser):
    """A service user with User Information items that others have too: nobody changes them."""

    def __init__(self, association: Association, mode: str, items: Sequence[Any]) -> None:
        self.assoc, self._mode = association, mode
        self._ae_title = ""
        self.primitive = self.address_info = None
        self._contexts, self._user_info = [], list(items)
        self._ext_neg, self._common_ext = {}, {}
        self.reset_negotiation_items()


class _Dimse(DIMSEServiceProvider):
    def __init__(self, association: Association) -> None:
        self._assoc = association
        self.cancel_req, self.message = {}, None
        self.msg_queue = OneThreadQueue()


@lru_cache(maxsize=64)
def _our_information(ae: AE, max_pdu_size: int) -> tuple[Any, ...]:
    """What every A-ASSOCIATE-AC of a listener says of us (PS3.7 D.3.3.1, D.3.3.2)."""
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_size
    class_uid = ImplementationClassUIDNotification()
    class_uid.implementation_class_uid = ae.implementation_class_uid
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = ae.implementation_version_name
    return length, class_uid, version


@cache
def _default_handlers() -> dict[Any, Any]:
    return Association(AE(), MODE_ACCEPTOR)._handlers


@cache
def _checkpoint() -> threading.Event:
    """Where pynetdicom's reactor would be held up; ours never is."""
    event = threading.Event()
    event.set()
    return event
