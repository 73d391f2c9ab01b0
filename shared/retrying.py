"""When something is tried again: a message, and a far end that is down."""

from __future__ import annotations

from msgspec import Struct


class RetryPolicy(Struct, frozen=True):
    """When a message is tried again, and when no more. Delays have full jitter: anything from 0 to
    the delay, so that what failed together does not come back together.
    """

    first_delay_s: float = 1.0  # doubles with each attempt
    longest_delay_s: float = 300.0
    # A message is given up when it was first tried so long ago and so often: the machine may have
    # been off in between.
    budget_s: float = 3 * 24 * 3600.0
    least_attempts: int = 5
    # What failed so often in a row gets one message at a time, a probe, until one succeeds.
    failures_until_probing: int = 5
    longest_probe_delay_s: float = 15.0
    # A peer that wishes for more is asked again after this.
    longest_retry_after_s: float = 3600.0

    def delay_s(self, attempt: int, jitter: float, retry_after_s: float = 0.0) -> float:
        """Seconds until the next attempt after `attempt` failed; `jitter` is in [0, 1)."""
        delay_s = jitter * _doubled(self.first_delay_s, attempt - 1, self.longest_delay_s)
        return max(delay_s, min(retry_after_s, self.longest_retry_after_s))

    def probe_delay_s(self, failures: int, jitter: float, retry_after_s: float = 0.0) -> float:
        """Seconds until the next probe of a far end after `failures` in a row."""
        doublings = failures - self.failures_until_probing
        delay_s = jitter * _doubled(self.first_delay_s, doublings, self.longest_probe_delay_s)
        return max(delay_s, min(retry_after_s, self.longest_retry_after_s))

    def is_spent(self, attempt: int, tried_for_s: float, budget_s: float | None = None) -> bool:
        """True if a message that just failed is not tried again; `budget_s` in place of ours."""
        budget_s = self.budget_s if budget_s is None else budget_s
        return attempt >= self.least_attempts and tried_for_s >= budget_s


class Circuit:
    """Whether a far end is well, judged by what came of the last attempts.

    Closed while it is. Open after so many failures in a row: then one attempt at a time is due, a
    probe, not before `probe_at_s`, until one succeeds. Whoever has it guards it.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.failures = 0  # in a row
        self.probe_at_s = 0.0
        self._policy = policy

    @property
    def is_open(self) -> bool:
        """True if nothing but probes is to be tried."""
        return self.failures >= self._policy.failures_until_probing

    def succeeded(self) -> None:
        """The far end is well."""
        self.failures = 0

    def failed(self, now_s: float, jitter: float, retry_after_s: float) -> bool:
        """The far end took nothing; it may take anything else as little. True if that opens it."""
        self.failures += 1
        if self.is_open:
            delay_s = self._policy.probe_delay_s(self.failures, jitter, retry_after_s)
            self.probe_at_s = now_s + delay_s
        return self.failures == self._policy.failures_until_probing


def _doubled(first: float, times: int, longest: float) -> float:
    # 2.0 ** 1024 is too large for a float, and 64 doublings are beyond every limit.
    return float(min(longest, first * 2.0 ** min(max(times, 0), 64)))
