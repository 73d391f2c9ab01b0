"""Spans of this process for a collector, which nothing waits for: a bounded queue and a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shared import metrics
from shared.tracing import OpenSpan, Value

# A span takes some 3 kB.
MAX_WAITING = 4096
_BATCH = 512
_EVERY_S = 2.0


class SpanSink:
    """As `shared.tracing.Sink`."""

    def __init__(self, exporter: SpanExporter, resource: Resource, *, sampling: float) -> None:
        """`sampling` is how many of all traces are kept, 0 to 1."""
        self._ids = _ChosenIds()
        self._outbox = Outbox(exporter)
        self._first_left_out = TraceIdRatioBased.get_bound_for_rate(sampling)
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # `begin` has decided
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        provider.add_span_processor(self._outbox)
        self._tracer = provider.get_tracer("axiom-flow")

    def begin(
        self, name: str, trace_id: str, span_id: str, parent_id: str, began_ns: int | None
    ) -> OpenSpan:
        """As `Sink`."""
        # The id decides, as OpenTelemetry has it: all processes leave out the same traces.
        if int(trace_id[16:], 16) >= self._first_left_out:
            return _LeftOut(span_id or parent_id or trace_id[:16])
        if parent_id:
            context = _context(trace_id, parent_id)
            span = self._tracer.start_span(
                name, context, SpanKind.CONSUMER, start_time=began_ns, record_exception=False
            )
        else:
            with self._ids.chosen(trace_id, span_id):
                span = self._tracer.start_span(
                    name, Context(), SpanKind.SERVER, start_time=began_ns, record_exception=False
                )
        return OtelSpan(span)

    def close(self, within_s: float) -> None:
        """Send what waits; what has not gone by then is lost."""
        self._outbox.close(within_s)


class OtelSpan:
    """As `shared.tracing.OpenSpan`."""

    __slots__ = ("_span", "is_sampled", "span_id")

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        self._span, self.is_sampled = span, context.trace_flags.sampled
        self.span_id = f"{context.span_id:016x}"

    def note(self, name: str, value: Value) -> None:
        """As `OpenSpan`."""
        self._span.set_attribute(name, value)

    def end(self, fault: str) -> None:
        """As `OpenSpan`."""
        if fault:
            self._span.set_attribute("error.type", fault)
            self._span.set_status(Status(StatusCode.ERROR, fault))
        self._span.end()


class _LeftOut:
    """Of a trace that nobody is to see; it costs a tenth of a span."""

    __slots__ = ("span_id",)
    is_sampled = False

    def __init__(self, span_id: str) -> None:
        self.span_id = span_id

    def note(self, name: str, value: Value) -> None:
        """As `OpenSpan`."""

    def end(self, fault: str) -> None:
        """As `OpenSpan`."""


class Outbox(SpanProcessor):
    """Spans that have ended, until the exporter has taken them; those that find it full are lost.

    `axiom_trace_spans` counts what became of them.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._waiting: deque[ReadableSpan] = deque()
        self._wake = threading.Condition()
        self._is_closing = self._is_over = False
        self._thread = threading.Thread(target=self._send_on, name="otlp-spans", daemon=True)
        self._thread.start()

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        """Called by the SDK; nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK: keep the span for the exporter, if there is room."""
        with self._wake:
            has_room = len(self._waiting) < MAX_WAITING and not self._is_closing
            if has_room:
                self._waiting.append(span)
                if len(self._waiting) == _BATCH:
                    self._wake.notify()
        if not has_room:
            _count("lost", 1)

    def close(self, within_s: float) -> None:
        """Send what waits, for so long at most. Twice is once."""
        with self._wake:
            if self._is_closing:
                return
            self._is_closing = True
            self._wake.notify()
        self._thread.join(within_s)
        with self._wake:
            self._is_over = True
            left = len(self._waiting)
            self._waiting.clear()
        if left:
            _count("lost", left)
        self._exporter.shutdown()  # ends a wait between attempts

    def _send_on(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._is_closing or len(self._waiting) >= _BATCH, _EVERY_S
                )
            batch = self._batch()
            while batch:
                sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
                _count("sent" if sent else "lost", len(batch))
                batch = self._batch()
            with self._wake:
                if self._is_closing and not self._waiting:
                    return

    def _batch(self) -> list[ReadableSpan]:
        with self._wake:
            if self._is_over:
                return []
            return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]


class _ChosenIds(RandomIdGenerator):
    """Ids for the first span of a trace, which are told beforehand; random ones for the others."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def chosen(self, trace_id: str, span_id: str) -> Iterator[None]:
        """In the block, these; an empty one is random."""
        self._local.ids = trace_id, span_id
        try:
            yield
        finally:
            self._local.ids = None

    def generate_trace_id(self) -> int:
        ids = getattr(self._local, "ids", None)
        return int(ids[0], 16) if ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        ids = getattr(self._local, "ids", None)
        return (int(ids[1], 16) if ids and ids[1] else 0) or super().generate_span_id()


def _context(trace_id: str, span_id: str) -> Context:
    parent = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags.get_default()
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _count(outcome: str, number: int) -> None:
    metrics.PROCESS.count(metrics.TRACE_SPANS, outcome, amount=number)
