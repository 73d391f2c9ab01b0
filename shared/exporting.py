"""What this process tells collectors of metrics, traces and audit messages, as far as the
environment names some: docs/monitoring.md, docs/identity.md. Nothing is imported for the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from shared.adapters.otlp.settings import OtlpSettings
from shared.environment import Environment, Platform
from shared.metrics import PROCESS, Snapshot
from shared.metrics_folder import MetricsFolder
from shared.pipeline import audit

if TYPE_CHECKING:
    from shared.adapters.otlp.export import Export
    from shared.adapters.syslog import SyslogSettings
    from shared.pipeline.audit_forwarding import Forwarder
    from shared.pipeline.ports import Ports


def begin() -> None:
    """Export spans from now on, and where each process speaks for itself what it counts; keep what
    is audited for its repository.

    Twice is once; never to be called before a fork. Raises: ValueError naming the setting that is
    wrong or missing.
    """
    _export()
    if _repository() is not None:
        audit.spool_entries()


def audit_forwarder(ports: Ports) -> Forwarder | None:
    """What sends audit messages to their repository; None if there is none."""
    settings = _repository()
    if settings is None:
        return None
    from shared.adapters.syslog import SyslogCollector
    from shared.pipeline.audit_forwarding import Forwarder

    return Forwarder(ports.documents, ports.clock, SyslogCollector(settings))


def speak_for(read: Callable[[], Snapshot]) -> None:
    """Export what `read` gives in place of what this process counts."""
    export = _export()
    if export is None:
        return
    environment = Environment.read()
    if environment.platform is Platform.EMBEDDED:
        # What its processes have counted outlives them.
        export.speak_for(read, MetricsFolder(environment.home / "run" / "metrics").since_ns())
    else:
        export.speak_for(read)


def close() -> None:
    """Send what waits; for a process that is about to end without Python's own end."""
    export = _export()
    if export is not None:
        export.close()


def _repository() -> SyslogSettings | None:
    if not os.environ.get("AXIOM_AUDIT_SYSLOG"):
        return None
    from shared.adapters.syslog import SyslogSettings

    return SyslogSettings.read()


@cache
def _export() -> Export | None:
    settings = OtlpSettings.read()
    if settings is None:
        return None
    from shared.adapters.otlp.export import Export

    if Environment.read().platform is Platform.EMBEDDED:
        # One process of the machine speaks for all of them.
        return Export(settings, None)
    from shared.adapters.cloud.clients import google_session
    from shared.adapters.cloud.environment import CloudEnvironment

    session = google_session() if settings.is_googles else None
    project = CloudEnvironment.read().project
    return Export(settings, PROCESS.snapshot, project=project, session=session)
