"""What this process tells collectors of metrics, traces and audit messages, as far as the
environment names some: docs/monitoring.md, docs/identity.md. Nothing is imported for the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.adapters.otlp.settings import OtlpSettings
from shared.environment import Environment, Platform
from shared.metrics import PROCESS, Snapshot
from shared.metrics_folder import MetricsFolder

if TYPE_CHECKING:
    from shared.adapters.otlp.export import Export
    from shared.adapters.syslog import SyslogSettings
    from shared.pipeline.audit_forwarding import Forwarder
    from shared.pipeline.ports import Ports


class _Process:
    """What this process is: one that works on, or a command that is done in a moment."""

    is_command = False
    export: Export | None = None


def check_settings() -> None:
    """Raises: ValueError naming the setting that is wrong."""
    OtlpSettings.read()
    _repository()


def be_command() -> None:
    """Tell of no spans and metrics: others do, this process is done in a moment."""
    _Process.is_command = True


def begin() -> None:
    """Export spans from now on, and where each process speaks for itself what it counts; keep what
    is audited for its repository.

    Twice is once; never to be called before a fork. Raises: ValueError naming the setting that is
    wrong or missing.
    """
    if _Process.export is None and not _Process.is_command:
        _Process.export = _begun()
    if _repository() is not None:
        from shared import audit

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
    export = _Process.export
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
    if _Process.export is not None:
        _Process.export.close()


def _repository() -> SyslogSettings | None:
    if not os.environ.get("AXIOM_AUDIT_SYSLOG"):
        return None
    from shared.adapters.syslog import SyslogSettings

    return SyslogSettings.read()


def _begun() -> Export | None:
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
