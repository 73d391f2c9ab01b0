"""Providers of standard terms, as the configuration says; each is imported where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shared.config.standardizers import AnyProvider, EmbeddedProvider
from shared.ports import Clock, SecretStore
from shared.standardize.embedded import EmbeddedStandardizer

if TYPE_CHECKING:
    from shared.standardize.proposals import Standardizer
    from shared.standardize.vocabulary import Vocabulary


def create(
    entity: AnyProvider, site: Mapping[str, Vocabulary], secrets: SecretStore, clock: Clock
) -> Standardizer:
    """The provider; nothing connects before it is asked. `site` are vocabularies by Attribute."""
    assert isinstance(entity, EmbeddedProvider)
    return EmbeddedStandardizer(site)
