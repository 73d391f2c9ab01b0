"""What a process of the cloud platform needs and does not find, each with its Terraform address."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.api_core import exceptions as google_errors

from shared.adapters.cloud import clients
from shared.adapters.cloud.environment import CloudEnvironment
from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.cloud.message_bus import terraform_address
from shared.adapters.cloud.object_store import TERRAFORM_ADDRESS as BUCKET
from shared.errors import AxiomError
from shared.ports import DocumentStore

_PUBLISH = "pubsub.topics.publish"
# Lists that people are shown: each needs an index, and all are applied together.
_LISTED = (
    ("exceptions", "last_at"),
    ("instances", "received_at"),
    ("deliveries", "updated_at"),
    ("studies", "opened_at"),
    ("jobs", "created_at"),
    ("audit", "when"),
)


def faults(
    environment: CloudEnvironment, documents: DocumentStore, topics: Iterable[str]
) -> list[str]:
    """One line each; empty if all is there. `topics` are those that the process publishes to."""
    checks: list[Callable[[], None]] = [
        lambda: _bucket(environment),
        lambda: _documents(documents),
        *(lambda listed=listed: _index(documents, *listed) for listed in _LISTED),
        *(lambda topic=topic: _topic(environment, topic) for topic in topics),
    ]
    found = []
    for check in checks:
        try:
            check()
        except AxiomError as error:
            found.append(str(error))
    return found


def _bucket(environment: CloudEnvironment) -> None:
    bucket = clients.storage_client(environment).bucket(environment.bucket)
    with told_as_ours(f"Cloud Storage bucket {environment.bucket}", BUCKET):
        next(iter(bucket.list_blobs(max_results=1)), None)


def _documents(documents: DocumentStore) -> None:
    documents.get("configuration", "head")


def _index(documents: DocumentStore, collection: str, field: str) -> None:
    documents.query(collection, order_by=field, descending=True, limit=1)


def _topic(environment: CloudEnvironment, topic: str) -> None:
    publisher = clients.publisher(environment)
    name = environment.topic_prefix + topic
    path = publisher.topic_path(environment.project, name)
    with told_as_ours(f"Pub/Sub topic {name}", terraform_address(topic)):
        try:
            answer = publisher.test_iam_permissions(
                request={"resource": path, "permissions": [_PUBLISH]}
            )
        except google_errors.MethodNotImplemented:
            publisher.get_topic(topic=path)  # the emulator knows no permissions
            return
        if _PUBLISH not in answer.permissions:
            raise google_errors.PermissionDenied("no such topic, or no role on it")
