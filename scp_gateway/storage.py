"""The C-STORE SCP of one association: Command Set and fragments in, a durable Instance out.

It knows nothing of sockets: the bytes come from a `MessageReader`, the responses go to `send`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from scp_gateway.dimse_messages import Command, store_response
from scp_gateway.dimse_status import SUCCESS, Answer, Status, answer_for
from scp_gateway.file_meta import file_meta
from scp_gateway.message_reader import AbortReason, ProtocolError
from shared.errors import AxiomError, InvalidInstanceError, PermanentError
from shared.messages import Receipt, Source
from shared.ports import Buffer

log = logging.getLogger(__name__)

# A refused data set is read to its end, so that the sender is there for the answer; one that
# goes on for longer than this is not worth the wait.
_MAX_DRAINED_BYTES = 1 << 30


class Staging(Protocol):
    """One Instance on its way in: what the gateway uses of `shared.pipeline.receive.Staging`."""

    def write(self, *buffers: Buffer) -> None: ...
    def commit(
        self, *, sop_class_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> Receipt: ...
    def refuse(self, error: AxiomError) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...


class Receiver(Protocol):
    """What the gateway uses of `shared.pipeline.receive.Receiver`."""

    def begin(self, source: Source, *, move_originator: str = "") -> Staging: ...


@dataclass(slots=True)
class Tally:
    """What came over one association."""

    stored: int = 0
    refused: int = 0
    bytes: int = 0


class StorageScp:
    """Answers the C-STORE requests of one association, one after the other.

    `transfer_syntaxes` are those agreed on, by the ID of their accepted Presentation Context.
    """

    def __init__(
        self,
        receiver: Receiver,
        source: Source,
        transfer_syntaxes: Mapping[int, str],
        supports: Callable[[str], bool],
        send: Callable[[bytes], None],
    ) -> None:
        self._receiver, self._source = receiver, source
        self._transfer_syntaxes = transfer_syntaxes
        self._supports, self._send = supports, send
        self._context_id = 0
        self._request: Command | None = None
        self._answer: Answer | None = None  # once it is known that the Instance is refused
        self._staging: Staging | None = None
        self._stack = ExitStack()
        self._meta = b""  # until it is written, with the first fragments
        self._drained = 0
        self.tally = Tally()

    def accepts(self, context_id: int) -> bool:
        """True if the Presentation Context was accepted."""
        return context_id in self._transfer_syntaxes

    def begin(self, context_id: int, request: Command) -> None:
        """Start on a request in an accepted Presentation Context."""
        self._context_id, self._request = context_id, request
        self._answer, self._staging, self._meta, self._drained = None, None, b"", 0
        try:
            begun = self._receiver.begin(self._source, move_originator=request.move_originator)
            self._staging = self._stack.enter_context(begun)
        except Exception as error:
            self._refuse(answer_for(error), error)
            return
        fault = self._fault_of(request)
        if fault is not None:
            self._refuse(fault, InvalidInstanceError(fault.comment))
            return
        self._meta = file_meta(
            sop_class_uid=request.affected_sop_class_uid,
            sop_instance_uid=request.affected_sop_instance_uid,
            transfer_syntax_uid=self._transfer_syntaxes[context_id],
            source_ae_title=self._source.calling_ae_title,
        )

    def write(self, *fragments: Buffer) -> None:
        """Stage more of the file; what follows a refusal is read and forgotten.

        Raises: ProtocolError if that goes on and on.
        """
        if self._meta:
            fragments, self._meta = (self._meta, *fragments), b""
        size = sum(map(len, fragments))
        self.tally.bytes += size
        if self._answer is not None or self._staging is None:
            self._drained += size
            if self._drained > _MAX_DRAINED_BYTES:
                raise ProtocolError(AbortReason.NOT_SPECIFIED, "a refused data set does not end")
            return
        try:
            self._staging.write(*fragments)
        except Exception as error:
            self._refuse(answer_for(error), error)

    def finish(self) -> None:
        """The message is complete: make the Instance durable, then answer."""
        request, staging = self._request, self._staging
        if request is None:
            return
        if self._meta:  # the data set is empty
            self.write()
        if self._answer is None and staging is not None:
            try:
                staging.commit(
                    sop_class_uid=request.affected_sop_class_uid,
                    sop_instance_uid=request.affected_sop_instance_uid,
                )
                self.tally.stored += 1
            except Exception as error:
                # Who commits has already recorded what it refused.
                self._refuse(answer_for(error), error, record=False)
        answer = self._answer or SUCCESS
        self._request = self._staging = None
        self._discard()
        self._send(store_response(self._context_id, request, answer))

    def abandon(self) -> None:
        """The association is over: what is not committed is discarded. Twice is once."""
        self._request = self._staging = None
        self._discard()

    def _fault_of(self, request: Command) -> Answer | None:
        if not self._supports(request.affected_sop_class_uid):
            return Answer(Status.SOP_CLASS_NOT_SUPPORTED, "SOP Class not supported")
        uid = request.affected_sop_instance_uid
        # Odd UIDs do occur; whether this one is too odd is for the checks at commit.
        if not 0 < len(uid) <= 64 or not uid.isascii() or not uid.isprintable():
            return Answer(Status.INVALID_SOP_INSTANCE, "SOP Instance UID missing or malformed")
        if not request.has_data_set:
            return Answer(Status.CANNOT_UNDERSTAND, "the request has no data set")
        return None

    def _refuse(self, answer: Answer, error: Exception, *, record: bool = True) -> None:
        self._answer = answer
        self.tally.refused += 1
        if not isinstance(error, AxiomError):
            log.error("C-STORE failed on a fault of the gateway", exc_info=error)
        elif record and isinstance(error, PermanentError) and self._staging is not None:
            try:
                self._staging.refuse(error)
            except AxiomError:
                log.exception("a refused Instance could not be recorded")
        # Its room on disk is free for others while the rest is read.
        self._discard()

    def _discard(self) -> None:
        try:
            self._stack.close()
        except Exception:
            # Nothing depends on it: what is not committed is invisible, and swept at a start.
            log.exception("a staged file could not be discarded")
