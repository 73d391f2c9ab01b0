"""The pipeline over embedded ports, with Google's stores beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import google.cloud.storage as storage
import pytest

from shared import bootstrap
from shared.adapters.cloud import platform
from shared.adapters.cloud.environment import CloudEnvironment
from tests.google.cloud_storage import BUCKET, cloud_storage
from tests.google.healthcare import HealthcareStore, healthcare
from tests.unit.cloud.test_wiring import SETTINGS
from tests.unit.operating import System, running_system


@pytest.fixture
def bucket() -> Iterator[storage.Bucket]:
    with cloud_storage() as found:
        yield found


@pytest.fixture
def store() -> Iterator[HealthcareStore]:
    with healthcare() as found:
        yield found


@pytest.fixture
def system(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bucket: storage.Bucket,
    store: HealthcareStore,
) -> Iterator[System]:
    """The pipeline over embedded ports, fetching from Google's stores."""
    settings = {
        **SETTINGS,
        "AXIOM_LANDING_BUCKETS": BUCKET,
        "STORAGE_EMULATOR_HOST": bucket.client._connection.API_BASE_URL,
        "AXIOM_HEALTHCARE_ENDPOINT": store.url,
    }
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", settings["STORAGE_EMULATOR_HOST"])
    monkeypatch.setattr(
        bootstrap, "places", lambda: platform.places(CloudEnvironment.read(settings))
    )
    yield from running_system(tmp_path / "home", monkeypatch.setenv)
