"""Makes the first admin and prints their API key: `python -m infra.local.first_key`.

A process of its own, so that the one that watches over the system all its life stays small.
"""

from __future__ import annotations

from shared.bootstrap import from_environment
from shared.identity.directory import Directory
from shared.identity.keys import ApiKeys

# The user that a new home starts with.
ADMIN = "admin"


def main() -> None:
    """Print nothing if the home has a key already."""
    ports = from_environment()
    keys = ApiKeys(ports.documents, ports.clock)
    if keys.any_exists():
        return
    Directory(ports.documents, ports.clock).ensure_admin(ADMIN, by="first start")
    print(keys.create(ADMIN, by="first start").text)


if __name__ == "__main__":
    main()
