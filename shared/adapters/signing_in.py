"""How we sign in to a source or destination over HTTP, as the configuration says."""

from __future__ import annotations

from collections.abc import Callable

from shared.adapters.destinations import authorization as sign_in
from shared.adapters.destinations.authorization import Authorization
from shared.config.entities import DicomwebDestination, OrthancDestination
from shared.config.sources import DicomwebSource
from shared.ports import SecretStore


def authorization(
    entity: DicomwebSource | DicomwebDestination | OrthancDestination, secrets: SecretStore
) -> Authorization:
    """As `entity` says; its secret is read when it is first needed."""
    given = entity.credentials

    def secret(name: str | None, in_clear: str | None) -> Callable[[], str]:
        return lambda: secrets.get(name) if name else in_clear or ""

    if entity.auth_type == "basic":
        return sign_in.basic(given.username or "", secret(given.password_secret, given.password))
    if entity.auth_type == "bearer_token":
        return sign_in.bearer(secret(given.token_secret, given.token))
    if not isinstance(entity, DicomwebSource):
        return sign_in.none()
    if entity.auth_type == "oauth2_client_credentials":
        from shared.adapters.sources.oauth import ClientCredentials

        return ClientCredentials(
            entity.name,
            entity.token_url or "",
            entity.credentials.client_id or "",
            secret(entity.credentials.client_secret_secret, entity.credentials.client_secret),
            scope=entity.scope,
            timeout_s=entity.timeout_s,
        )
    if entity.auth_type == "google":
        from shared.adapters.sources.google_tokens import GoogleTokens

        return GoogleTokens(entity.name, entity.base_url, timeout_s=entity.timeout_s)
    return sign_in.none()
