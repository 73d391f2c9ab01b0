"""Secrets in Secret Manager."""

from __future__ import annotations

from google.api_core import exceptions as google_errors
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.types import Replication, Secret, SecretPayload

from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.names import check_secret_name
from shared.errors import SecretMissingError

TERRAFORM_ADDRESS = "module.secrets"


class SecretManagerSecretStore:
    """SecretStore of the cloud: a secret of Secret Manager for each name, replicated by Google.

    `prefix` stands before each name, so that roles can be given for our secrets alone.
    """

    def __init__(self, client: SecretManagerServiceClient, project: str, prefix: str = "") -> None:
        self._client, self._project, self._prefix = client, project, prefix

    def get(self, name: str) -> str:
        """The newest version. Raises: SecretMissingError, StorageUnavailableError."""
        path = f"{self._path(name)}/versions/latest"
        with told_as_ours("Secret Manager", TERRAFORM_ADDRESS):
            try:
                answer = self._client.access_secret_version(name=path)
            except (google_errors.NotFound, google_errors.FailedPrecondition):
                # FailedPrecondition: the newest version is disabled or destroyed.
                raise SecretMissingError(name) from None
        return answer.payload.data.decode()

    def put(self, name: str, value: str) -> None:
        """Add a version, and the secret if it is not there. Raises: StorageUnavailableError."""
        path = self._path(name)
        if not value:
            raise ValueError("a secret has at least one character")
        payload = SecretPayload(data=value.encode())
        with told_as_ours("Secret Manager", TERRAFORM_ADDRESS):
            try:
                self._client.add_secret_version(parent=path, payload=payload)
            except google_errors.NotFound:
                self._create(name)
                self._client.add_secret_version(parent=path, payload=payload)

    def delete(self, name: str) -> None:
        """Delete all versions. Raises: StorageUnavailableError."""
        path = self._path(name)
        with told_as_ours("Secret Manager", TERRAFORM_ADDRESS):
            try:
                self._client.delete_secret(name=path)
            except google_errors.NotFound:
                return

    def _create(self, name: str) -> None:
        try:
            self._client.create_secret(
                parent=f"projects/{self._project}",
                secret_id=self._prefix + name,
                secret=Secret(replication=Replication(automatic=Replication.Automatic())),
            )
        except google_errors.AlreadyExists:
            # Another process was first; the version is what matters.
            return

    def _path(self, name: str) -> str:
        check_secret_name(name)
        return f"projects/{self._project}/secrets/{self._prefix}{name}"
