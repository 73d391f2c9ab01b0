"""What this process exports to a collector, if the environment says that it is to: see
docs/monitoring.md. Nothing of OpenTelemetry is imported where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from shared.adapters.otlp.settings import OtlpSettings
from shared.environment import Environment, Platform
from shared.metrics import PROCESS, Snapshot

if TYPE_CHECKING:
    from shared.adapters.otlp.export import Export


def begin() -> None:
    """Export spans from now on, and where each process speaks for itself what it counts.

    Twice is once; never to be called before a fork. Raises: ValueError naming the setting that is
    wrong or missing.
    """
    _export()


def speak_for(read: Callable[[], Snapshot]) -> None:
    """Export what `read` gives in place of what this process counts."""
    export = _export()
    if export is not None:
        export.speak_for(read)


def close() -> None:
    """Send what waits; for a process that is about to end without Python's own end."""
    export = _export()
    if export is not None:
        export.close()


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
