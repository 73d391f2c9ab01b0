"""What a stage's entry point does with one pushed message: parse, call, record.

Pub/Sub pushes a message over HTTP; the embedded runner hands the same values to the same entry
points without HTTP. 204 acknowledges; 503 and 500 have the message delivered again. Words beside a
204, which HTTP leaves out, say that the far end refuses all that is sent to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping

from msgspec import Struct

from shared import crash_points, metrics, tracing
from shared.errors import (
    AxiomError,
    CopyInFlightError,
    MalformedMessageError,
    NotDecidedYetError,
    PermanentError,
    TransientError,
)
from shared.messages import (
    AnyMessage,
    CommitmentRequested,
    DeliveryRequested,
    ExceptionRaised,
    JobRequested,
    M,
    Receipt,
    Stage,
    Topic,
    decode,
)
from shared.pipeline.envelope import (
    ATTEMPT_HEADER,
    MESSAGE_ID_HEADER,
    HeaderFields,
    Pushed,
    PushedMessage,
    open_envelope,
)
from shared.pipeline.exceptions import exception_from
from shared.pipeline.ports import Ports

__all__ = [
    "ATTEMPT_HEADER",
    "MESSAGE_ID_HEADER",
    "CallerRefusedError",
    "HeaderFields",
    "PushRequest",
    "PushResponse",
    "Pushed",
    "PushedMessage",
    "Steps",
    "answer",
    "answer_in_steps",
    "take",
    "tick",
    "to_the_end",
]

log = logging.getLogger(__name__)

# Body, HTTP status, headers: what Flask takes as a response.
PushResponse = tuple[str, int, dict[str, str]]

# The work on one message. Where it yields, the documents that it has written have to be durable
# before it goes on; where nothing is kept back they are. With True the others that were begun are
# to come as far first, if they can.
Steps = Generator[bool, None, PushResponse]


class CallerRefusedError(Exception):
    """Whoever calls may not. `status`: 401 if we do not know who it is, 403 if we do."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


class PushRequest(Struct, frozen=True):
    """One unwrapped push without HTTP, as the embedded runner makes it."""

    data: bytes
    headers: Mapping[str, str]

    def get_data(self) -> bytes:
        """The message's bytes."""
        return self.data


def answer(
    request: Pushed,
    kind: type[M],
    stage: Stage,
    topic: Topic,
    run: Callable[[M], None],
    ports: Ports,
) -> PushResponse:
    """Run a stage on the pushed message and tell the bus what became of it.

    Nothing is read for a caller who may not call. A PermanentError is published to the exception
    log with what a retry needs; if even that fails the message is delivered again.
    """

    def run_at_once(message: M) -> Iterator[bool]:
        run(message)
        return iter(())

    return to_the_end(answer_in_steps(request, kind, stage, topic, run_at_once, ports))


def answer_in_steps(
    request: Pushed,
    kind: type[M],
    stage: Stage,
    topic: Topic,
    run: Callable[[M], Iterator[bool]],
    ports: Ports,
) -> Steps:
    """As `answer`, of a stage that yields where its documents have to be durable."""
    with metrics.PROCESS.timed(metrics.STAGE_SECONDS, stage):
        response = yield from _answer(request, kind, stage, topic, run, ports)
    metrics.PROCESS.count(metrics.STAGE, stage, str(response[1]))
    return response


def to_the_end(steps: Steps) -> PushResponse:
    """Take all steps at once, where nothing that they write is kept back."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            response: PushResponse = ended.value
            return response


def _answer(
    request: Pushed,
    kind: type[M],
    stage: Stage,
    topic: Topic,
    run: Callable[[M], Iterator[bool]],
    ports: Ports,
) -> Steps:
    attempt, data, trace_id = 1, b"", ""
    try:
        _let_in(request, ports)
        try:
            pushed = open_envelope(request)
            attempt, data = pushed.attempt, pushed.data
            message = decode(data, kind)
            trace_id = _trace_id(message)
        except MalformedMessageError as error:
            return _record(error, None, data, stage, topic, attempt, ports)
        with tracing.stage(stage, trace_id, pushed.traceparent) as scope:
            receipt = _receipt(message)
            if receipt is not None:
                scope.describe(receipt)
            scope.note("axiom.attempt", attempt)
            try:
                yield from run(message)
            except PermanentError as error:
                scope.failed(error)
                return _record(error, message, data, stage, topic, attempt, ports)
    except CallerRefusedError as error:
        return _refused(error)
    except TransientError as error:
        headers = {}
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        # 503 tells of the destination, 425 (Too Early, RFC 8470) of this message alone.
        is_early = isinstance(error, CopyInFlightError | NotDecidedYetError)
        return str(error), 425 if is_early else 503, headers
    except Exception as error:
        log.exception("a stage failed", extra={"stage": stage, "trace_id": trace_id})
        return f"internal error: {type(error).__name__}", 500, {}
    crash_points.reached(crash_points.AFTER_STAGE)
    return "", 204, {}


def take(
    request: Pushed, stage: Stage, run: Callable[[PushedMessage], None], ports: Ports
) -> PushResponse:
    """As `answer`, for messages that others publish: `run` reads them itself."""
    pushed = PushedMessage(b"")
    try:
        _let_in(request, ports)
        try:
            pushed = open_envelope(request)
            run(pushed)
        except PermanentError as error:
            _publish(exception_from(error, stage=stage, at=ports.clock.now()), ports)
    except CallerRefusedError as error:
        return _refused(error)
    except TransientError as error:
        is_early = isinstance(error, CopyInFlightError)
        return str(error), 425 if is_early else 503, {}
    except Exception as error:
        log.exception("a stage failed", extra={"stage": stage})
        return f"internal error: {type(error).__name__}", 500, {}
    return "", 204, {}


def tick(request: Pushed, run: Callable[[], object], ports: Ports) -> PushResponse:
    """Run what a timer calls for: 204, or 503 if it cannot be done now. The next call goes on."""
    try:
        _let_in(request, ports)
        run()
    except CallerRefusedError as error:
        return _refused(error)
    except TransientError as error:
        return str(error), 503, {}
    return "", 204, {}


def _let_in(request: Pushed, ports: Ports) -> None:
    if ports.check_caller is not None:
        ports.check_caller(request.headers)


def _refused(error: CallerRefusedError) -> PushResponse:
    log.warning("a caller is refused", extra={"status": error.status, "reason": error.reason})
    return error.reason, error.status, {}


def _receipt(message: AnyMessage | None) -> Receipt | None:
    if isinstance(message, ExceptionRaised | JobRequested | CommitmentRequested | None):
        return None
    return message.receipt


def _trace_id(message: AnyMessage) -> str:
    if isinstance(message, JobRequested | CommitmentRequested):
        return ""
    return message.trace_id if isinstance(message, ExceptionRaised) else message.receipt.trace_id


def _record(
    error: AxiomError,
    message: AnyMessage | None,
    data: bytes,
    stage: Stage,
    topic: Topic,
    attempt: int,
    ports: Ports,
) -> PushResponse:
    raised = exception_from(
        error,
        stage=stage,
        at=ports.clock.now(),
        receipt=_receipt(message),
        destination=message.destination if isinstance(message, DeliveryRequested) else "",
        attempts=attempt,
        retry_topic=topic,
        retry_message=data,
    )
    _publish(raised, ports)
    refuses_all = isinstance(error, PermanentError) and error.refuses_all
    return str(error) if refuses_all else "", 204, {}


def _publish(raised: ExceptionRaised, ports: Ports) -> None:
    ports.exceptions.publish(raised)
    said = {
        "stage": raised.stage,
        "code": raised.code,
        "exception_id": raised.exception_id,
        "destination": raised.destination,
        # What a peer says of an Instance may quote it.
        "reason": "" if raised.peer_message else raised.message,
    }
    log.warning(
        "recorded in the exception log",
        extra={name: value for name, value in said.items() if value},
    )
