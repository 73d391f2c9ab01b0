"""What an entity may reach over the network, where writing it is not writing the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from shared.config.kinds import Kind
from shared.identity.permissions import Permission
from shared.web.access import may
from shared.web.problems import ProblemError

if TYPE_CHECKING:
    from shared.config.service import ConfigurationService

# Of a provider of a standardizer: where it is asked, and as whom.
_REACH: Final = ("type", "base_url", "token_secret", "project", "location")
_EMBEDDED: Final = "embedded"


def check_reach(kind: Kind, document: Mapping[str, Any], service: ConfigurationService) -> None:
    """Refuse providers of a standardizer that the configuration has none like of: an editor of
    rules could else have any secret sent to any address.

    Raises: ProblemError.
    """
    if kind.name != "standardizers" or may(Permission.CONFIGURATION_WRITE):
        return
    known = {reach for entity in service.list(kind.name) for reach in _reaches(entity)}
    if not known.issuperset(_reaches(document)):
        raise ProblemError(
            403,
            "forbidden",
            "Whom a standardizer asks over the network, and with which secret, you may not say.",
            hint="It takes configuration:write; after that you may use and tune it.",
        )


def _reaches(entity: Mapping[str, Any]) -> Iterator[str]:
    providers = entity.get("providers")
    for one in providers if isinstance(providers, list | tuple) else ():
        if isinstance(one, Mapping) and one.get("type") != _EMBEDDED:
            yield json.dumps([one.get(name) for name in _REACH], default=str)
