"""What an answer of a source means: the tables of destinations, told as errors of sources."""

from __future__ import annotations

from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.errors import (
    AxiomError,
    SourceMisconfiguredError,
    SourceRefusedError,
    SourceUnavailableError,
)


def failure(
    verdict: Verdict, source: str, words: str = "", *, retry_after_s: float | None = None
) -> AxiomError:
    """The error for an outcome that is not a success; `words` are the peer's own."""
    text = f"{verdict.meaning}: {words}" if words else verdict.meaning
    if verdict.outcome is Outcome.TRANSIENT:
        unavailable = SourceUnavailableError(source, text)
        unavailable.retry_after_s = retry_after_s
        return unavailable
    if verdict.outcome is Outcome.MISCONFIGURED:
        return SourceMisconfiguredError(source, text)
    return SourceRefusedError(source, text)
