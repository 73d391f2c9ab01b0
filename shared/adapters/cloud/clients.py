"""Google's clients as the environment says: Google's own servers, or emulators in their place.

Each is imported and made when it is asked for. Nothing connects before its first call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from shared.adapters.cloud.environment import CloudEnvironment

if TYPE_CHECKING:
    import google.cloud.storage as storage
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud import firestore
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.pubsub_v1.services.publisher import PublisherClient

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def publisher(environment: CloudEnvironment) -> PublisherClient:
    """Of Pub/Sub."""
    from google.pubsub_v1.services.publisher import PublisherClient

    if not environment.pubsub_emulator:
        return PublisherClient()
    import grpc
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    # The plain client, unlike the batching one, does not read PUBSUB_EMULATOR_HOST itself.
    channel = grpc.insecure_channel(environment.pubsub_emulator)
    return PublisherClient(transport=PublisherGrpcTransport(channel=channel))


def firestore_client(environment: CloudEnvironment) -> firestore.Client:
    """Of Firestore; reads FIRESTORE_EMULATOR_HOST itself."""
    from google.cloud import firestore

    return firestore.Client(project=environment.project, database=environment.database)


def storage_client(environment: CloudEnvironment) -> storage.Client:
    """Of Cloud Storage; reads STORAGE_EMULATOR_HOST itself."""
    import google.cloud.storage as storage

    return storage.Client(project=environment.project, **_anonymous_for("STORAGE_EMULATOR_HOST"))


def secret_manager(environment: CloudEnvironment) -> SecretManagerServiceClient:
    """Of Secret Manager."""
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

    if not environment.secret_manager_endpoint:
        return SecretManagerServiceClient()
    import grpc
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )

    channel = grpc.insecure_channel(environment.secret_manager_endpoint.removeprefix("http://"))
    return SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))


def authorized_session(environment: CloudEnvironment) -> AuthorizedSession:
    """For the Healthcare API, as this process's service account; nobody where it is an emulator."""
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    if environment.healthcare_endpoint.startswith("http://"):
        return AuthorizedSession(AnonymousCredentials())
    return google_session()


def google_session() -> AuthorizedSession:
    """For Google's APIs, as this process's service account."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return AuthorizedSession(credentials)


def _anonymous_for(variable: str) -> dict[str, Any]:
    if not os.environ.get(variable):
        return {}
    from google.auth.credentials import AnonymousCredentials

    return {"credentials": AnonymousCredentials()}
