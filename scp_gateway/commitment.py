"""Storage commitment on one association (PS3.4 Annex J): as SCP asked, as SCU told.

A request is durable before its response. While its association is open and idle, what became of it
is reported there; `shared.pipeline.report_commitment` does so once the association is over.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from scp_gateway.dimse_messages import Command, event_report_request, normalized_response
from scp_gateway.dimse_status import Answer, Status
from scp_gateway.message_reader import AbortReason, ProtocolError
from shared.dicom.command_set import N_ACTION_RQ, N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP
from shared.dicom.commitment import (
    ALL_COMMITTED,
    FAILURES_EXIST,
    REQUEST_STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    CommitmentReport,
    CommitmentRequest,
    MalformedCommitmentError,
)
from shared.errors import AxiomError
from shared.messages import Source
from shared.ports import Buffer

log = logging.getLogger(__name__)

# Some ten thousand Instances in one request.
_MAX_DATA_SET_BYTES = 4 << 20
# How long to wait before asking again what became of a request; grows with what asking costs.
_FIRST_WAIT_S = 0.1
_COST_FACTOR = 20.0
_LONGEST_WAIT_S = 5.0
# Whoever reports afterwards begins so much later than we end.
_MARGIN_S = 5.0

_SUCCESS = Answer(Status.SUCCESS)


class Inquiry(Protocol):
    """What the gateway uses of `shared.pipeline.commitment.Inquiry`."""

    def report(self) -> CommitmentReport | None: ...


class Commitments(Protocol):
    """What the gateway uses of `shared.pipeline.commitment.Commitments`."""

    def request(self, request: CommitmentRequest, source: Source, *, here_for_s: float) -> str: ...
    def inquire(self, key: str) -> Inquiry | None: ...
    def reported(self, key: str, report: CommitmentReport) -> None: ...
    def let_go(self, key: str) -> None: ...
    def keep_report(self, report: CommitmentReport) -> None: ...


@dataclass(slots=True)
class _Pending:
    """A request that was made here and has not been reported."""

    key: str
    context_id: int
    inquiry: Inquiry | None = None
    report: CommitmentReport | None = None
    message_id: int = 0  # of the N-EVENT-REPORT, once it is sent


class CommitmentScp:
    """Answers the messages of the Presentation Contexts of storage commitment.

    `transfer_syntaxes` are those agreed on, by the ID of the Presentation Context.
    """

    def __init__(
        self,
        commitments: Commitments,
        source: Source,
        transfer_syntaxes: Mapping[int, str],
        send: Callable[[bytes], None],
        *,
        max_pdu_size: int,
        network_timeout_s: float,
    ) -> None:
        self._commitments, self._source = commitments, source
        self._transfer_syntaxes, self._send = transfer_syntaxes, send
        self._max_pdu_size, self._network_timeout_s = max_pdu_size, network_timeout_s
        self._message_ids = itertools.count(1)
        self._pending: list[_Pending] = []
        self._look_at_s = 0.0
        self._context_id = 0
        self._message: Command | None = None
        self._data = bytearray()

    def accepts(self, context_id: int) -> bool:
        """True for a Presentation Context of storage commitment."""
        return context_id in self._transfer_syntaxes

    @property
    def look_in_s(self) -> float | None:
        """Seconds until `look` is to be called if nothing comes; None if there is no need."""
        if all(pending.message_id for pending in self._pending):
            return None
        return max(0.0, self._look_at_s - time.monotonic())

    def begin(self, context_id: int, message: Command) -> None:
        """Start on a message."""
        self._context_id, self._message = context_id, message
        self._data.clear()

    def write(self, *fragments: Buffer) -> None:
        """More of its data set. Raises: ProtocolError if that goes on and on."""
        for fragment in fragments:
            self._data += fragment
        if len(self._data) > _MAX_DATA_SET_BYTES:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, "a data set is too long")

    def finish(self) -> None:
        """The message is complete: act on it and answer. Raises: OSError."""
        message, self._message = self._message, None
        if message is None:
            return
        if message.field == N_EVENT_REPORT_RSP:
            self._note_response(message)
            return
        answer = Answer(Status.UNRECOGNIZED_OPERATION)
        if message.field == N_ACTION_RQ:
            answer = self._guarded(self._take_request, message)
        elif message.field == N_EVENT_REPORT_RQ:
            answer = self._guarded(self._take_report, message)
        elif message.field & 0x8000:
            return  # a response to nothing that we asked
        self._send(normalized_response(self._context_id, message, answer))

    def look(self) -> None:
        """Between messages: report what has been decided meanwhile. Raises: OSError."""
        if not self._pending or time.monotonic() < self._look_at_s:
            return
        began_s = time.monotonic()
        try:
            for pending in self._pending:
                if not pending.message_id:
                    self._report_if_decided(pending)
        except AxiomError:
            log.exception("storage commitment cannot be decided now")
        cost_s = time.monotonic() - began_s
        wait_s = min(max(_FIRST_WAIT_S, _COST_FACTOR * cost_s), _LONGEST_WAIT_S)
        self._look_at_s = time.monotonic() + wait_s

    def abandon(self) -> None:
        """The association is over: what was not reported is for others to report. Twice is once."""
        pending, self._pending = self._pending, []
        for one in pending:
            try:
                self._commitments.let_go(one.key)
            except AxiomError:
                # It is let go of by itself a little later.
                log.exception("a request for storage commitment cannot be let go of")

    # ---- as SCP

    def _take_request(self, message: Command) -> Answer:
        if message.requested_sop_instance_uid != WELL_KNOWN_INSTANCE:
            return Answer(Status.NO_SUCH_SOP_INSTANCE)
        if message.type_id != REQUEST_STORAGE_COMMITMENT:
            return Answer(Status.NO_SUCH_ACTION)
        request = CommitmentRequest.parse(
            bytes(self._data), self._transfer_syntaxes[self._context_id]
        )
        key = self._commitments.request(
            request, self._source, here_for_s=self._network_timeout_s + _MARGIN_S
        )
        self._pending = [one for one in self._pending if one.key != key]
        self._pending.append(_Pending(key, self._context_id))
        self._look_at_s = 0.0
        log.info("storage commitment requested", extra={"instances": len(request.references)})
        return _SUCCESS

    def _report_if_decided(self, pending: _Pending) -> None:
        pending.inquiry = pending.inquiry or self._commitments.inquire(pending.key)
        report = pending.inquiry.report() if pending.inquiry else None
        if report is None:
            return
        pending.report = report
        pending.message_id = next(self._message_ids) % 0x10000
        self._send(
            event_report_request(
                pending.context_id,
                pending.message_id,
                report.event_type_id,
                report.encode(self._transfer_syntaxes[pending.context_id]),
                self._max_pdu_size,
            )
        )

    def _note_response(self, message: Command) -> None:
        for pending in list(self._pending):
            is_it = pending.report and pending.message_id == message.message_id
            if is_it and pending.report and message.status == Status.SUCCESS:
                try:
                    self._commitments.reported(pending.key, pending.report)
                except AxiomError:
                    log.exception("a report of storage commitment cannot be noted")
                    continue  # it is reported once more, which does no harm
                self._pending.remove(pending)

    # ---- as SCU

    def _take_report(self, message: Command) -> Answer:
        if message.affected_sop_instance_uid != WELL_KNOWN_INSTANCE:
            return Answer(Status.NO_SUCH_SOP_INSTANCE)
        if message.type_id not in (ALL_COMMITTED, FAILURES_EXIST):
            return Answer(Status.NO_SUCH_EVENT_TYPE)
        syntax = self._transfer_syntaxes[self._context_id]
        self._commitments.keep_report(CommitmentReport.parse(bytes(self._data), syntax))
        return _SUCCESS

    def _guarded(self, take: Callable[[Command], Answer], message: Command) -> Answer:
        try:
            return take(message)
        except MalformedCommitmentError as error:
            return Answer(Status.INVALID_ARGUMENT_VALUE, str(error))
        except AxiomError:
            log.exception("a message of storage commitment cannot be dealt with now")
            return Answer(Status.RESOURCE_LIMITATION)
        except Exception:
            log.exception("storage commitment failed on a fault of the gateway")
            return Answer(Status.PROCESSING_FAILURE)
