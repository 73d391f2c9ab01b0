"""What is not applied is named by its address in Terraform, before anybody needs it."""

from __future__ import annotations

import uuid

import pytest
import requests

from shared.adapters.cloud import preflight
from shared.adapters.cloud.document_store import FirestoreDocumentStore
from shared.adapters.cloud.environment import CloudEnvironment
from tests.google.cloud_storage import BUCKET, cloud_storage


@pytest.mark.parametrize("bucket", [BUCKET, "not-applied"])
@pytest.mark.parametrize("has_topic", [True, False])
def test_each_thing_that_is_missing_has_one_line(
    bucket: str,
    has_topic: bool,
    pubsub_emulator: str,
    firestore_documents: FirestoreDocumentStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = f"demo-{uuid.uuid4().hex[:12]}"
    if has_topic:
        url = f"http://{pubsub_emulator}/v1/projects/{project}/topics/axiom-job-requested"
        requests.put(url, json={}, timeout=60).raise_for_status()
    with cloud_storage() as found:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", found.client._connection.API_BASE_URL)
        environment = CloudEnvironment.read(
            {
                "AXIOM_PROJECT": project,
                "AXIOM_BUCKET": bucket,
                "AXIOM_TOPIC_PREFIX": "axiom-",
                "AXIOM_OIDC": "off",
                "PUBSUB_EMULATOR_HOST": pubsub_emulator,
            }
        )
        faults = preflight.faults(environment, firestore_documents, ["job-requested"])
    assert any("google_storage_bucket.received" in one for one in faults) == (bucket != BUCKET)
    assert any('module.topics["job-requested"]' in one for one in faults) != has_topic
    assert len(faults) == (bucket != BUCKET) + (not has_topic)
