"""Starts and ends what a process exports."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource

from shared import tracing
from shared.adapters.otlp.readings import metrics_data
from shared.adapters.otlp.settings import OtlpSettings
from shared.adapters.otlp.spans import SpanSink
from shared.metrics import Snapshot

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


class Export:
    """What this process exports, until it is closed; one for each process, which does not fork."""

    def __init__(
        self,
        settings: OtlpSettings,
        read: Callable[[], Snapshot] | None,
        *,
        project: str = "",
        session: requests.Session | None = None,
    ) -> None:
        """`read` gives what is to be told of metrics; None for nothing. `project` is Google's, and
        `session` signs in where OpenTelemetry's own variables do not say how.
        """
        # What it has to say of a collector that is away says nothing new, batch by batch.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._settings, self._read = settings, read
        self._resource = _resource(os.environ, project)
        self._closing = threading.Event()
        self._since_ns = time.time_ns()
        self._spans = SpanSink(
            OTLPSpanExporter(settings.url("traces"), timeout=_TIMEOUT_S, session=session),
            self._resource,
            sampling=settings.sampling,
        )
        self._metrics = OTLPMetricExporter(
            settings.url("metrics"), timeout=_TIMEOUT_S, session=session
        )
        self._thread = threading.Thread(target=self._tell_on, name="otlp-metrics", daemon=True)
        self._thread.start()
        tracing.take_with(self._spans)
        atexit.register(self.close)

    def speak_for(self, read: Callable[[], Snapshot], since_ns: int | None = None) -> None:
        """Tell what `read` gives from now on, which is of more than this process, and was counted
        since `since_ns` if not since this process began.
        """
        if since_ns is not None:
            self._since_ns = since_ns
        self._read = read

    def close(self, within_s: float = 1.5) -> None:
        """Send what there is, for about so long at most. Twice is once."""
        if self._closing.is_set():
            return
        tracing.take_with(None)
        ends_s = time.monotonic() + within_s
        self._closing.set()
        self._spans.close(within_s)
        self._thread.join(max(0.1, ends_s - time.monotonic()))
        self._metrics.shutdown()

    def _tell_on(self) -> None:
        was_taken = True
        is_last = False
        while not is_last:
            is_last = self._closing.wait(self._settings.metrics_every_s)
            is_taken = self._is_told()
            if was_taken and not is_taken:
                log.warning("the collector takes no metrics")
            was_taken = is_taken

    def _is_told(self) -> bool:
        if self._read is None:
            return True
        try:
            snapshot = self._read()
        except Exception:
            log.exception("metrics cannot be read")
            return True
        now_ns = time.time_ns()
        data = metrics_data(snapshot, self._resource, since_ns=self._since_ns, at_ns=now_ns)
        return self._metrics.export(data) is MetricExportResult.SUCCESS


def _resource(environ: Mapping[str, str], project: str) -> Resource:
    attributes = {"service.instance.id": f"{socket.gethostname()}-{os.getpid()}"}
    if not environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = environ.get("K_SERVICE") or "axiom-flow"
    if project:
        attributes["gcp.project_id"] = project
    return Resource.create(attributes)
