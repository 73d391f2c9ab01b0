"""What Terraform has not applied, told when a process starts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from shared import bootstrap
from shared.environment import Environment, Platform

log = logging.getLogger(__name__)


def tell(topics: Iterable[str]) -> None:
    """Log one line for each thing that is not applied, or may not be used; the process works
    meanwhile. `topics` are those that it publishes to. Nothing outside the cloud platform.
    """

    def look() -> None:
        for fault in bootstrap.faults(topics):
            log.error("not applied", extra={"fault": fault})

    if Environment.read().platform is Platform.CLOUD:
        threading.Thread(target=look, name="preflight", daemon=True).start()
