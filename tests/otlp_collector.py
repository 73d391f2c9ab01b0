"""A collector of OpenTelemetry on loopback; it reads with the protocol's own classes."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """What came."""

    url: str = ""
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    # Those of the newest report, by name.
    metrics: dict[str, Any] = field(default_factory=dict)
    resources: list[dict[str, str]] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def named(self, name: str) -> Any:
        """The span of this name, of which there is one."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def take(self, path: str, body: bytes) -> None:
        """One request."""
        with self.came:
            self.bodies.append(body)
            if path.endswith("/v1/traces"):
                for traces in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(attributes(traces.resource))
                    for scope in traces.scope_spans:
                        self.spans.extend(scope.spans)
            elif path.endswith("/v1/metrics"):
                for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.resources.append(attributes(measured.resource))
                    self.metrics = {m.name: m for s in measured.scope_metrics for m in s.metrics}
            self.came.notify_all()


def attributes(of: Any) -> dict[str, Any]:
    """Of a span, a resource or a data point; a list as a tuple."""
    found = {}
    for one in of.attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        if kind == "array_value":
            value = tuple(v.string_value for v in value.values)
        found[one.key] = value
    return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens in the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.status == 200:
                collector.take(self.path, body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
