"""Query/Retrieve and Modality Worklist on one association (PS3.4 Annexes C, K): requests become
jobs, which go on between the peer's messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from scp_gateway.dimse_messages import Command, query_response
from scp_gateway.dimse_status import Answer, Status
from scp_gateway.extended_negotiation import has_spans, is_fuzzy
from scp_gateway.message_reader import AbortReason, ProtocolError
from scp_gateway.query_jobs import Archives, Control, Job, Reply, finding
from scp_gateway.query_services import QUERY_SOP_CLASSES
from scp_gateway.retrieving import GetTaker, MoveTaker, Taker, retrieving
from shared import metrics
from shared.config.entities import Listener
from shared.config.query_retrieve import QueryRetrieve
from shared.dicom.command_set import C_CANCEL_RQ, C_FIND_RQ, C_GET_RQ, C_MOVE_RQ
from shared.dicom.query import (
    MalformedIdentifierError,
    Query,
    encode_keys,
    encode_match,
    parse_keys,
)
from shared.errors import AxiomError, TransientError
from shared.ports import Buffer
from shared.refusals import comment_on

log = logging.getLogger(__name__)

_MAX_IDENTIFIER_BYTES: Final = 1 << 20
_OPERATIONS: Final = {C_FIND_RQ: "C-FIND", C_MOVE_RQ: "C-MOVE", C_GET_RQ: "C-GET"}
_PENDING: Final = (Status.PENDING, Status.PENDING_NOT_ALL_KEYS)


@dataclass(frozen=True, slots=True)
class Contexts:
    """The accepted Presentation Contexts that matter here."""

    # SOP Class of Query/Retrieve and Transfer Syntax, by ID.
    queries: Mapping[int, tuple[str, str]]
    # ID and Transfer Syntax of those of which the peer is SCP, by SOP Class of storage.
    storage: Mapping[str, Sequence[tuple[int, str]]]
    # What was answered to extended negotiation, by SOP Class of Query/Retrieve.
    extended: Mapping[str, bytes]


class QueryRetrieveScp:
    """Answers the messages of the Presentation Contexts of Query/Retrieve, one request at a time.

    While `is_busy`, `advance` is to be called whenever the peer has sent nothing.
    """

    def __init__(
        self,
        archives: Archives,
        listener: Listener,
        contexts: Contexts,
        send: Callable[[bytes], None],
        *,
        peer_ae_title: str,
        max_pdu_size: int,
    ) -> None:
        self._archives, self._listener = archives, listener
        self._contexts, self._send = contexts, send
        self._peer_ae_title, self._max_pdu_size = peer_ae_title, max_pdu_size
        self._context_id = 0
        self._message: Command | None = None
        self._data = bytearray()
        # What goes on.
        self._request: Command | None = None
        self._request_context_id = 0
        self._job: Job | None = None
        self._control = Control()
        self._replies = 0
        self._began_s = 0.0

    def accepts(self, context_id: int) -> bool:
        """True for a Presentation Context of Query/Retrieve."""
        return context_id in self._contexts.queries

    @property
    def is_busy(self) -> bool:
        """There is something to be done without the peer."""
        return self._job is not None and not self._control.is_waiting

    @property
    def is_asked(self) -> bool:
        """A request is not answered to its end."""
        return self._job is not None

    def begin(self, context_id: int, message: Command) -> None:
        """Start on a message."""
        self._context_id, self._message = context_id, message
        self._data.clear()

    def write(self, *fragments: Buffer) -> None:
        """More of its identifier. Raises: ProtocolError if that goes on and on."""
        for fragment in fragments:
            self._data += fragment
        if len(self._data) > _MAX_IDENTIFIER_BYTES:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, "an identifier is too long")

    def finish(self) -> None:
        """The message is complete. Raises: ProtocolError, OSError."""
        message, self._message = self._message, None
        if message is None:
            return
        if message.field == C_CANCEL_RQ:
            request = self._request
            if request is not None and request.message_id == message.message_id:
                self._control.is_cancelled = True
            return
        if message.field & 0x8000:
            self._control.answer(message.status)
            return
        if self._job is not None:
            # There is no asynchronous operations window (PS3.7 D.3.3.3).
            raise ProtocolError(AbortReason.NOT_SPECIFIED, "a request while one is being answered")
        self._request, self._request_context_id = message, self._context_id
        self._control = Control()
        self._replies = 0
        self._began_s = time.monotonic()
        self._job = self._begun(message, bytes(self._data))

    def advance(self) -> None:
        """Do one step of the request at hand. Raises: OSError."""
        job, request = self._job, self._request
        if job is None or request is None:
            return
        try:
            reply = next(job)
        except StopIteration:
            self._end()
            return
        except OSError:
            raise
        except Exception as error:
            self._end()
            self._reply(request, self._failure(request, error))
            return
        if reply is None:
            return
        if reply.answer.status not in _PENDING:
            # Before it is sent: the peer may ask for more at once.
            self._end()
        self._reply(request, reply)

    def abandon(self) -> None:
        """The association is over; twice is once."""
        self._end()

    # ---- inside

    def _begun(self, message: Command, data: bytes) -> Job:
        """What answers the request; nothing is done yet."""
        sop_class, syntax = self._contexts.queries[self._context_id]
        known = QUERY_SOP_CLASSES[sop_class]
        if message.field != known.command_field:
            return iter([Reply(Answer(Status.UNRECOGNIZED_OPERATION))])
        return self._answering(message, data, syntax)

    def _answering(self, message: Command, data: bytes, syntax: str) -> Iterator[Reply | None]:
        sop_class, _ = self._contexts.queries[self._request_context_id]
        levels, services = QUERY_SOP_CLASSES[sop_class].levels, self._listener.query_retrieve
        if not levels:
            keys = parse_keys(data, syntax)
            steps = self._archives.worklist(self._listener.worklist or "")
            encode = partial(encode_keys, keys, transfer_syntax_uid=syntax)
            yield from finding(steps.find(keys), encode, self._control)
            return
        assert services is not None  # or the SOP Class would not have been accepted
        extended = self._contexts.extended.get(sop_class, b"")
        query = replace(
            Query.parse(data, syntax, levels),
            is_fuzzy=is_fuzzy(extended),
            has_spans=has_spans(extended),
        )
        archive = self._archives.of(services.store)
        if message.field == C_FIND_RQ:
            encode = partial(
                encode_match,
                query,
                transfer_syntax_uid=syntax,
                retrieve_ae_title=self._listener.ae_title,
            )
            yield from finding(archive.find(query), encode, self._control)
            return
        if not query.uids(query.level.unique_key):
            raise MalformedIdentifierError(f"no unique key of level {query.level}")
        taker = self._taker(message, services)
        if taker is None:
            log.warning("move destination unknown", extra={"listener": self._listener.name})
            yield Reply(Answer(Status.MOVE_DESTINATION_UNKNOWN, "move destination unknown"))
            return
        yield from retrieving(
            archive,
            query,
            taker,
            self._control,
            transfer_syntax_uid=syntax,
            max_instance_bytes=self._archives.max_instance_bytes,
        )

    def _taker(self, message: Command, services: QueryRetrieve) -> Taker | None:
        if message.field != C_MOVE_RQ:
            return GetTaker(
                self._contexts.storage, self._send, self._control, max_pdu_size=self._max_pdu_size
            )
        peer = self._archives.move_destination(
            services,
            message.move_destination,
            calling_ae_title=self._listener.ae_title,
            timeout_s=self._listener.network_timeout_s,
        )
        if peer is None:
            return None
        return MoveTaker(peer, (self._peer_ae_title, message.message_id))

    def _reply(self, request: Command, reply: Reply) -> None:
        self._replies += 1
        self._send(
            query_response(
                self._request_context_id,
                request,
                reply.answer,
                identifier=reply.identifier,
                counts=reply.counts,
                max_pdu_size=self._max_pdu_size,
            )
        )
        if reply.answer.status not in _PENDING:
            self._count(request, reply.answer.status)
            log.info(
                "query answered",
                extra={
                    "listener": self._listener.name,
                    "command_field": f"{request.field:04X}H",
                    "status": f"{reply.answer.status:04X}H",
                    "responses": self._replies,
                },
            )

    def _count(self, request: Command, status: int) -> None:
        sop_class, _ = self._contexts.queries[self._request_context_id]
        is_worklist = not QUERY_SOP_CLASSES[sop_class].levels
        operation = _OPERATIONS.get(request.field, "other")
        labels = self._listener.name, f"{operation} worklist" if is_worklist else operation
        metrics.PROCESS.count(metrics.QUERIES, *labels, f"{status:04X}H")
        metrics.PROCESS.observe(
            metrics.QUERY_SECONDS, *labels, seconds=time.monotonic() - self._began_s
        )

    def _failure(self, request: Command, error: Exception) -> Reply:
        if isinstance(error, MalformedIdentifierError):
            return Reply(Answer(Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, str(error)))
        if not isinstance(error, AxiomError):
            log.error("a query failed on a fault of the gateway", exc_info=error)
            return Reply(
                Answer(Status.UNABLE_TO_PROCESS, "processing failure, see the gateway's log")
            )
        log.warning(
            "a query cannot be answered",
            extra={"listener": self._listener.name, "error": str(error)},
        )
        status = Status.UNABLE_TO_PROCESS
        if isinstance(error, TransientError):
            is_find = request.field == C_FIND_RQ
            status = Status.OUT_OF_RESOURCES if is_find else Status.CANNOT_COUNT_MATCHES
        return Reply(Answer(status, comment_on(error)))

    def _end(self) -> None:
        job, self._job, self._request = self._job, None, None
        self._control.is_waiting = False
        close = getattr(job, "close", None)
        if close is not None:
            close()
