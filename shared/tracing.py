"""What an Instance goes through, as spans of one trace, and the id that its log lines share.

The trace of an Instance has the id that its Receipt carries, and its first span an id that follows
from it, so that a stage finds its trace whoever published the message. Where nobody takes spans,
as in a process that exports none, only the id for log lines is kept at hand.

Spans hold UIDs, counts, codes and names of the configuration, never Values of a patient.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from shared.errors import AxiomError

if TYPE_CHECKING:
    from shared.messages import Receipt

# The attribute of a message that holds the span in which it was published, as W3C Trace Context
# writes it. Not its own name: Cloud Run puts header fields of that name into what it passes on.
TRACEPARENT: Final = "axiom-traceparent"

Value = str | int | float | bool | Sequence[str]

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TRACE_ID = re.compile("[0-9a-f]{32}")
_UID = re.compile(r"[0-9.]{1,64}")


class OpenSpan(Protocol):
    """A span that has begun."""

    # 16 hexadecimal digits.
    span_id: str
    is_sampled: bool

    def note(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def end(self, fault: str) -> None:
        """It is over; `fault` is the code of what went wrong, "" for nothing."""


class Sink(Protocol):
    """Takes spans, without ever waiting for whoever they are for."""

    def begin(
        self, name: str, trace_id: str, span_id: str, parent_id: str, began_ns: int | None
    ) -> OpenSpan:
        """Begin a span of a trace, with `span_id` if it is not "", at a time of the wall clock or
        now. Without `parent_id` it is the trace's first.
        """


class _Taking:
    """Who takes the spans of this process."""

    sink: Sink | None = None


def take_with(sink: Sink | None) -> None:
    """Have `sink` take the spans that begin from now on; None for nobody."""
    _Taking.sink = sink


class Scope:
    """A block that works on one Instance: its log lines have the trace's id, and it is a span if
    somebody takes spans.
    """

    __slots__ = ("_began_ns", "_fault", "_name", "_parent", "_span", "_token", "trace_id")

    def __init__(self, name: str, trace_id: str, parent: str, began_ns: int | None) -> None:
        self._name, self.trace_id, self._parent = name, trace_id, parent
        self._began_ns, self._fault = began_ns, ""
        self._span: OpenSpan | None = None
        self._token: Token[Scope | None] | None = None

    @property
    def span_id(self) -> str:
        """Of the span, "" if nobody is to see one."""
        return self._span.span_id if self._span is not None and self._span.is_sampled else ""

    @property
    def traceparent(self) -> str:
        """What a message says that is published now; "" if there is no span."""
        if self._span is None:
            return ""
        return f"00-{self.trace_id}-{self._span.span_id}-{'01' if self._span.is_sampled else '00'}"

    def describe(self, receipt: Receipt) -> None:
        """Say which Instance the span is about."""
        if self._span is None:
            return
        self.note("axiom.receipt_id", receipt.receipt_id)
        self.note("axiom.source.type", receipt.source.type)
        self.note("axiom.source.name", receipt.source.name)
        self.note("axiom.bytes", receipt.file.size)
        for name, uid in (
            ("dicom.sop_class_uid", receipt.sop_class_uid),
            ("dicom.sop_instance_uid", receipt.sop_instance_uid),
            ("dicom.study_instance_uid", receipt.study_instance_uid),
            ("dicom.series_instance_uid", receipt.series_instance_uid),
        ):
            if _UID.fullmatch(uid):  # a sender that mixes up its elements may have put a name there
                self.note(name, uid)

    def note(self, name: str, value: Value) -> None:
        """Set an attribute of the span."""
        if self._span is not None:
            self._span.note(name, value)

    def failed(self, error: BaseException) -> None:
        """Say what went wrong where nothing is raised."""
        self._fault = error.code if isinstance(error, AxiomError) else type(error).__name__

    def __enter__(self) -> Self:
        if _Taking.sink is not None:
            self._span = self._begun(_Taking.sink)
        self._token = _CURRENT.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _CURRENT.reset(self._token)
        if error is not None:
            self.failed(error)
        if self._span is not None:
            self._span.end(self._fault)

    def _begun(self, sink: Sink) -> OpenSpan:
        known = _TRACEPARENT.fullmatch(self._parent)
        if not _TRACE_ID.fullmatch(self.trace_id):
            self.trace_id = known[1] if known else new_trace_id()
            return sink.begin(self._name, self.trace_id, "", known[2] if known else "", None)
        first_id = self.trace_id[:16]
        if self._began_ns is not None:
            return sink.begin(self._name, self.trace_id, first_id, "", self._began_ns)
        # What was published on account of another Instance still belongs to its own trace.
        parent_id = known[2] if known and known[1] == self.trace_id else first_id
        return sink.begin(self._name, self.trace_id, "", parent_id, None)


_CURRENT: Final[ContextVar[Scope | None]] = ContextVar("SCOPE", default=None)


def new_trace_id() -> str:
    """32 hexadecimal digits."""
    return secrets.token_hex(16)


def reception(trace_id: str, began_ns: int) -> Scope:
    """The first span of a trace; it began at that time of the wall clock."""
    return Scope("receive", trace_id, "", began_ns)


def stage(name: str, trace_id: str, traceparent: str) -> Scope:
    """What a stage does with one message, that said of itself what `published_here` had it say."""
    return Scope(name, trace_id, traceparent, None)


def current() -> Scope | None:
    """The block that this thread is in."""
    return _CURRENT.get()


def note(name: str, value: Value) -> None:
    """Set an attribute of the span that is open here, if one is."""
    scope = _CURRENT.get()
    if scope is not None:
        scope.note(name, value)


def published_here() -> dict[str, str]:
    """The attributes of a message that is published here: the span that it comes from."""
    scope = _CURRENT.get()
    traceparent = "" if scope is None else scope.traceparent
    return {TRACEPARENT: traceparent} if traceparent else {}
