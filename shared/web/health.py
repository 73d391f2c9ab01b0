"""Whether the system works: /health, /ready and /health/dicom-processing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from shared.pipeline.ports import HealthCheck
from shared.ports import Clock
from shared.web.access import is_authenticated
from shared.web.documents_out import json_response

HEALTHY, DEGRADED = "healthy", "degraded"

# Checks write to disk, and anybody may ask: one answer serves everybody for this long.
_KEEP_S = 1.0


class PartHealth(BaseModel):
    """How one part is; `detail` is for those with a key."""

    status: str
    detail: str = ""


class SystemHealth(BaseModel):
    """How the system is: healthy only when every part is."""

    status: str
    checks: dict[str, PartHealth]


class HealthReport:
    """Runs the checks, at most once a second."""

    def __init__(self, checks: Mapping[str, HealthCheck], clock: Clock) -> None:
        self._checks, self._clock = checks, clock
        self._lock = threading.Lock()
        self._faults: dict[str, str | None] = {}
        self._checked_at_s = float("-inf")

    def faults(self) -> dict[str, str | None]:
        """For each part None, or in a few words what is wrong with it."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._checked_at_s >= _KEEP_S:
                self._faults = {name: _run(check) for name, check in self._checks.items()}
                self._checked_at_s = now_s
            return dict(self._faults)


class KeptCheck:
    """A check that may take long, as one that asks a database does: nobody waits for it, what it
    said last is told meanwhile, and None before it has said anything.
    """

    def __init__(self, check: HealthCheck, clock: Clock, keep_s: float) -> None:
        """It is asked anew, in a thread, by who comes `keep_s` after it was asked last."""
        self._check, self._clock, self._keep_s = check, clock, keep_s
        self._lock = threading.Lock()
        self._fault: str | None = None
        self._is_asked = False
        self._asked_at_s = float("-inf")

    def __call__(self) -> str | None:
        """What is wrong, as it was said last."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if not self._is_asked and now_s - self._asked_at_s >= self._keep_s:
                self._is_asked, self._asked_at_s = True, now_s
                threading.Thread(target=self._ask, daemon=True).start()
            return self._fault

    def _ask(self) -> None:
        fault = _run(self._check)
        with self._lock:
            self._fault, self._is_asked = fault, False


# What each check of /health/dicom-processing is made of. Where a platform runs a part elsewhere, as
# the cloud does its functions, there is nothing here that could be wrong with it.
_DICOM_PROCESSING: Mapping[str, tuple[str, ...]] = {
    "listeners": ("gateway", "worklists", "edges"),
    "workers": ("stages", "delivery", "polling"),
    "storage": ("documents", "objects"),
    "queue": ("queue",),
}
# What a request of the API needs.
_FOR_REQUESTS = frozenset({"documents", "objects"})


def blueprint(
    report: HealthReport,
    queue: HealthCheck = lambda: None,
    edges: HealthCheck = lambda: None,
    worklists: HealthCheck = lambda: None,
) -> APIBlueprint:
    """The routes of health, which need no key. `queue` says whether work keeps up with what comes:
    a part that works may be behind. `edges` are gateways on premises, `worklists` what modalities
    are shown: all else works without them.
    """
    routes = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])

    @routes.get(
        "/health",
        operation_id="health",
        responses={200: SystemHealth, 503: SystemHealth},
    )
    def show() -> Response:
        """200 when every part works, 503 when one does not. Needs no key."""
        return _response(report.faults())

    @routes.get(
        "/ready",
        operation_id="ready",
        responses={200: SystemHealth, 503: SystemHealth},
    )
    def show_ready() -> Response:
        """200 when this process can answer requests, whatever other parts do. Needs no key."""
        return _response({k: v for k, v in report.faults().items() if k in _FOR_REQUESTS})

    @routes.get(
        "/health/dicom-processing",
        operation_id="dicom_processing",
        responses={200: SystemHealth, 503: SystemHealth},
    )
    def show_dicom_processing() -> Response:
        """Whether Instances come in, are worked on and go out; degraded, with 503, when any of that
        is not healthy. Needs no key.
        """
        beside = {"queue": queue, "edges": edges, "worklists": worklists}
        faults = report.faults() | {name: _run(check) for name, check in beside.items()}
        return _response(
            {
                name: "; ".join(f"{part}: {faults[part]}" for part in parts if faults.get(part))
                or None
                for name, parts in _DICOM_PROCESSING.items()
            }
        )

    return routes


def _response(faults: Mapping[str, str | None]) -> Response:
    checks: dict[str, Any] = {}
    for name, fault in faults.items():
        checks[name] = {"status": HEALTHY if fault is None else DEGRADED}
        if fault is not None and is_authenticated():
            checks[name]["detail"] = fault
    degraded = any(fault is not None for fault in faults.values())
    body = {"status": DEGRADED if degraded else HEALTHY, "checks": checks}
    return json_response(body, 503 if degraded else 200)


def _run(check: HealthCheck) -> str | None:
    try:
        return check()
    except Exception as error:
        # A check that breaks is a part that does not work, whatever the error says.
        return f"the check failed: {type(error).__name__}"
