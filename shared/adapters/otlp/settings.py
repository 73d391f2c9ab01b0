"""Whether and how a process exports what it measures, as the environment says.

Imports nothing of OpenTelemetry: a process that exports nothing pays nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_ENDPOINTS = (
    "AXIOM_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Where to, and how much. What it does not hold, OpenTelemetry's own variables say."""

    endpoint: str  # of the collector, without /v1/...; "" if OpenTelemetry's own variables say it
    sampling: float  # of all traces, how many: 0 to 1
    metrics_every_s: float

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> OtlpSettings | None:
        """None if nothing is to be exported. Raises: ValueError naming what is wrong."""
        if not any(environ.get(name) for name in _ENDPOINTS):
            return None
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        endpoint = environ.get("AXIOM_OTLP_ENDPOINT", "").rstrip("/")
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise ValueError("AXIOM_OTLP_ENDPOINT is a URL such as http://localhost:4318")
        every_ms = _number(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000.0, 100.0, 86_400_000.0)
        return cls(
            endpoint=endpoint,
            sampling=_number(environ, "AXIOM_TRACE_SAMPLING", 1.0, 0.0, 1.0),
            metrics_every_s=every_ms / 1000,
        )

    @property
    def is_googles(self) -> bool:
        """Whether the collector is Google's own, which wants to know who we are."""
        host = urlsplit(self.endpoint).hostname or ""
        return host.endswith(".googleapis.com")

    def url(self, signal: str) -> str | None:
        """Where traces or metrics go; None if OpenTelemetry's own variables say it."""
        return f"{self.endpoint}/v1/{signal}" if self.endpoint else None


def _number(
    environ: Mapping[str, str], name: str, default: float, least: float, most: float
) -> float:
    text = environ.get(name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ValueError(f"{name} is not a number from {least:g} to {most:g}")
    return number
