"""The parts of the cloud platform, each made when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from shared.adapters.cloud.environment import CloudEnvironment, Oidc
from shared.adapters.cloud.lazily import lazily
from shared.pipeline.dicom_store_name import StoredInstanceName
from shared.pipeline.ingest import Landed, Members, Pieces, Places
from shared.pipeline.uploads import BeginSession
from shared.ports import Clock, DocumentStore, MessageBus, ObjectStore, SecretStore

if TYPE_CHECKING:
    from shared.adapters.cloud.callers import TokenCheck
    from shared.edge.mover import Uploads


class Stores(Struct, frozen=True):
    """What holds state."""

    objects: ObjectStore
    documents: DocumentStore
    bus: MessageBus
    secrets: SecretStore


def stores(environment: CloudEnvironment, *, publish_within_s: float | None = None) -> Stores:
    """Stands for all of them; a client is imported when its store is first asked for something.

    With `publish_within_s` whoever publishes tries again himself.
    """
    return Stores(
        objects=lazily(lambda: _objects(environment)),
        documents=lazily(lambda: _documents(environment)),
        bus=lazily(lambda: _bus(environment, publish_within_s)),
        secrets=lazily(lambda: _secrets(environment)),
    )


def first_configuration(environment: CloudEnvironment) -> Mapping[str, Any]:
    """What a new system starts with: everything goes to the DICOM store, or is held. Rules may ask
    for standard body parts, of Gemini too where there is one.
    """
    started = {"standardizers": [_body_parts(environment)]}
    store = environment.dicom_store
    if store is None:
        return started
    destination = {
        "name": "primary-storage",
        "type": "google_healthcare",
        "project_id": store.project_id,
        "location": store.location,
        "dataset_id": store.dataset_id,
        "dicom_store_id": store.dicom_store_id,
        "base_url": f"{environment.healthcare_endpoint.rstrip('/')}/v1",
    }
    route = {"default_route": ["primary-storage"]}
    return {**started, "destinations": [destination], "settings": route}


def _body_parts(environment: CloudEnvironment) -> Mapping[str, Any]:
    providers: list[Mapping[str, Any]] = [{"type": "embedded"}]
    if environment.vertex_location and environment.vertex_model:
        providers.append(
            {
                "type": "vertex",
                "project": environment.project,
                "location": environment.vertex_location,
                "model": environment.vertex_model,
                "threshold": 0.8,
            }
        )
    return {"name": "body-parts", "attributes": ["BodyPartExamined"], "providers": providers}


def places(environment: CloudEnvironment) -> Places:
    """Where Instances are fetched from that others have put there."""

    @cache
    def storage() -> Any:
        from shared.adapters.cloud.clients import storage_client

        return storage_client(environment)

    @cache
    def session() -> Any:
        from shared.adapters.cloud.clients import authorized_session

        return authorized_session(environment)

    def instance(stored: StoredInstanceName) -> Pieces:
        from shared.adapters.cloud.dicom_store import HealthcareDicomStore

        url = stored.store.dicomweb_url(environment.healthcare_endpoint)
        return HealthcareDicomStore(session(), url).retrieve(
            stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid
        )

    def landed(one: Landed) -> Pieces:
        from shared.adapters.cloud.landing import landed_object

        return landed_object(storage(), one)

    def members(one: Landed) -> Members:
        from shared.adapters.cloud.landing import landed_members

        return landed_members(storage(), one)

    return Places(frozenset(environment.landing_buckets), landed, members, instance)


def begin_upload(environment: CloudEnvironment) -> BeginSession | None:
    """Begins uploads into the first landing bucket; None if there is none."""
    if not environment.landing_buckets:
        return None
    bucket = environment.landing_buckets[0]

    def begin(name: str, size: int | None) -> str:
        from shared.adapters.cloud import landing
        from shared.adapters.cloud.clients import storage_client

        return landing.begin_upload(storage_client(environment), bucket, name, size)

    return begin


def uploads(
    environment: CloudEnvironment, sessions: DocumentStore, pace: Callable[[int], None]
) -> Uploads:
    """Takes files of a gateway on premises; `sessions` are of its own machine."""

    def made() -> Uploads:
        from shared.adapters.cloud.clients import storage_client
        from shared.adapters.cloud.uploads import BucketUploads

        bucket = storage_client(environment).bucket(environment.bucket)
        return BucketUploads(bucket, sessions, pace)

    return lazily(made)


def caller_check(environment: CloudEnvironment, clock: Clock) -> TokenCheck | None:
    """Who may call a function; None if nobody is asked."""
    if environment.oidc is Oidc.OFF:
        return None
    from shared.adapters.cloud.callers import Certificates, TokenCheck

    return TokenCheck(
        environment.oidc,
        environment.audiences,
        environment.callers,
        Certificates(environment.certs_url, clock),
        clock,
    )


def _objects(environment: CloudEnvironment) -> ObjectStore:
    from shared.adapters.cloud.clients import storage_client
    from shared.adapters.cloud.object_store import BucketObjectStore

    return BucketObjectStore(storage_client(environment).bucket(environment.bucket))


def _documents(environment: CloudEnvironment) -> DocumentStore:
    from shared.adapters.cloud.clients import firestore_client
    from shared.adapters.cloud.document_store import FirestoreDocumentStore

    return FirestoreDocumentStore(firestore_client(environment))


def _bus(environment: CloudEnvironment, once_within_s: float | None) -> MessageBus:
    from shared.adapters.cloud.clients import publisher
    from shared.adapters.cloud.message_bus import PubSubMessageBus

    return PubSubMessageBus(
        publisher(environment),
        environment.project,
        environment.topic_prefix,
        once_within_s=once_within_s,
    )


def _secrets(environment: CloudEnvironment) -> SecretStore:
    from shared.adapters.cloud.clients import secret_manager
    from shared.adapters.cloud.secret_store import SecretManagerSecretStore

    return SecretManagerSecretStore(
        secret_manager(environment), environment.project, environment.secret_prefix
    )
