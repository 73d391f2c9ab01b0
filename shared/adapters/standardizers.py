"""Providers of standard terms, as the configuration says; each is imported where it is wanted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from shared.config.standardizers import AnyProvider, EmbeddedProvider, VertexProvider
from shared.errors import ProviderFailedError, SecretMissingError
from shared.ports import Clock, SecretStore
from shared.standardize.embedded import EmbeddedStandardizer

if TYPE_CHECKING:
    from shared.standardize.proposals import Standardizer
    from shared.standardize.remote import Guard, Model, Prompt
    from shared.standardize.vocabulary import Vocabulary

log = logging.getLogger(__name__)


class Providers:
    """Makes providers. Those that are configured alike share what is known of their service."""

    def __init__(self, secrets: SecretStore, clock: Clock) -> None:
        self._secrets, self._clock = secrets, clock
        self._lock = threading.Lock()
        self._guards: dict[str, Guard] = {}

    def create(self, entity: AnyProvider, site: Mapping[str, Vocabulary]) -> Standardizer:
        """The provider; nothing connects before it is asked. `site`: vocabularies by Attribute."""
        if isinstance(entity, EmbeddedProvider):
            return EmbeddedStandardizer(site)
        from shared.standardize.remote import Guard, RemoteStandardizer

        with self._lock:
            guard = self._guards.setdefault(
                entity.model_dump_json(exclude={"threshold"}),
                Guard(self._clock, requests_per_minute=entity.requests_per_minute),
            )
        return RemoteStandardizer(
            entity.type,
            entity.model,
            self._model(entity),
            guard,
            attempts=entity.attempts,
            site=site,
        )

    def _model(self, entity: AnyProvider) -> Model:
        assert not isinstance(entity, EmbeddedProvider)
        if isinstance(entity, VertexProvider):
            return _Gemini(entity)
        from shared.adapters.chat_completions import ChatCompletionsModel

        secret = entity.token_secret
        return ChatCompletionsModel(
            base_url=entity.base_url,
            model=entity.model,
            timeout_s=entity.timeout_s,
            token=partial(self._token, secret) if secret else None,
        )

    def _token(self, name: str) -> str:
        try:
            return self._secrets.get(name)
        except SecretMissingError:
            from shared.standardize.remote import NO_CREDENTIALS

            raise ProviderFailedError("openai", NO_CREDENTIALS) from None


class _Gemini:
    """GeminiModel, whose client takes a second to import, from the first question on."""

    def __init__(self, entity: VertexProvider) -> None:
        self._entity = entity
        self._model: Model | None = None

    def complete(self, prompt: Prompt) -> str:
        if self._model is None:
            try:
                from shared.adapters.cloud.gemini import GeminiModel
            except ImportError:
                log.error("requirements-gemini.txt is not installed, so Vertex AI cannot be asked")
                from shared.standardize.remote import NOT_INSTALLED

                raise ProviderFailedError("vertex", NOT_INSTALLED) from None
            self._model = GeminiModel(
                project=self._entity.project,
                location=self._entity.location,
                model=self._entity.model,
                timeout_s=self._entity.timeout_s,
                base_url=self._entity.base_url,
                is_shown_token=not (self._entity.base_url or "").startswith("http://"),
            )
        return self._model.complete(prompt)
