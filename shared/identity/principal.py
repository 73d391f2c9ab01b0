"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass

from shared.identity.permissions import ALL, Permission


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, how they showed it, and what they may do with what they showed.

    `credential` is such as "key 0a1b2c3d4e5f" or "session", as records name it. A `limited` one may
    less than its user, or not from everywhere, or not for ever, and so makes no keys.
    """

    name: str
    credential: str
    permissions: frozenset[Permission] = frozenset()
    limited: bool = False
    # When somebody signed in, in seconds since 1970; of a session or a token alone.
    signed_in_at_s: float | None = None

    @property
    def label(self) -> str:
        """As records name them."""
        return f"{self.name} ({self.credential})"

    def may(self, *permissions: Permission) -> bool:
        """Whether they may do all of it."""
        return self.permissions.issuperset(permissions)


PRESET = Principal("preset", "key preset", ALL)
