"""The configuration of a rehearsed system, changed as its operators would."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from infra.local.rehearse.system import System
from infra.local.terminal import CommandFailedError

if TYPE_CHECKING:
    from tests.google.healthcare import HealthcareStore

# The destination that a new system has.
PRIMARY = "primary-storage"

# A process may go by a configuration that it read half a second ago.
_IN_FORCE_AFTER_S = 0.7


def configure(system: System, **parts: Any) -> None:
    """Replace parts of the configuration, and return when every process follows it.

    Raises: CommandFailedError.
    """
    answer = system.request("PUT", "/api/v1/config", json=parts)
    if answer.status_code >= 300:
        raise CommandFailedError(f"the configuration is refused: {answer.text[:500]}")
    time.sleep(_IN_FORCE_AFTER_S)


def healthcare_destination(name: str, store: HealthcareStore) -> dict[str, Any]:
    """A destination that is that store."""
    _, project, _, location, _, dataset, _, store_name = store.name.split("/")
    return {
        "name": name,
        "type": "google_healthcare",
        "project_id": project,
        "location": location,
        "dataset_id": dataset,
        "dicom_store_id": store_name,
        "base_url": f"{store.url}/v1",
    }
