"""What a request to the API raises: problem details (RFC 9457), and no answer at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ApiFault:
    """One thing that is wrong with what was sent."""

    path: str
    message: str
    hint: str = ""


class ApiError(Exception):
    """The API refuses, with a `code` that stays the same from version to version."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        faults: Sequence[ApiFault] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, code, detail)
        self.status, self.code, self.detail, self.hint = status, code, detail, hint
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.detail} (HTTP {self.status}, {self.code})"

    @classmethod
    def of(cls, status: int, document: Any, retry_after: str = "") -> ApiError:
        """The error that a response is; of one that is no problem document, what can be said."""
        retry_after_s = float(retry_after) if retry_after.isdecimal() else None
        if not isinstance(document, Mapping) or not isinstance(document.get("code"), str):
            hint = (
                "Cloud Run and Identity-Aware Proxy want to know who asks: AXIOM_IDENTITY_TOKEN,"
                " identity_token."
                if status in (401, 403)
                else "Is this the address of Axiom Flow, and nothing before it that answers itself?"
            )
            words = f"HTTP {status}, and no answer of the API"
            return cls(status, "no-api", words, hint=hint, retry_after_s=retry_after_s)
        faults = document.get("faults")
        return cls(
            status,
            document["code"],
            str(document.get("detail", "")),
            hint=str(document.get("hint", "")),
            faults=[
                ApiFault(*(str(one.get(name, "")) for name in ("path", "message", "hint")))
                for one in (faults if isinstance(faults, list) else ())
                if isinstance(one, Mapping)
            ],
            retry_after_s=retry_after_s,
        )


class ApiUnreachableError(Exception):
    """Nobody answers at the address, or not to the end. args: what happened, without the key."""
