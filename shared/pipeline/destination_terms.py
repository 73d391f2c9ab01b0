"""On what terms a destination is used: how fast, and compressed or not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from shared.dicom.outgoing import OutgoingInstance
from shared.dicom.transfer_syntaxes import NATIVE
from shared.errors import CannotTranscodeError, DestinationBusyError
from shared.ports import BatchingDestination, Clock, Destination, PendingDelivery
from shared.rates import TokenBuckets

if TYPE_CHECKING:
    from shared.config.entities import AnyDestination

_TRANSFER_SYNTAXES: Final[Mapping[str, str]] = {
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
    "htj2k": "1.2.840.10008.1.2.4.201",
}
_INSTANCES, _BYTES = "instances", "bytes"


def on_its_terms(
    destination: Destination,
    entity: AnyDestination,
    clock: Clock,
    *,
    longest_wait_s: float,
    wait: Callable[[float], object] | None = None,
) -> Destination:
    """`destination` as `entity` wants it used, by all threads of this process together.

    Who would have to wait for longer than `longest_wait_s` is told to come again. `wait` sleeps.
    """
    has_rate = entity.rate_limit_per_s or entity.rate_limit_bytes_per_s
    if not has_rate and entity.storage_policy.compression is None:
        return destination
    if isinstance(destination, BatchingDestination):
        return _BatchingOnTerms(destination, entity, clock, longest_wait_s, wait)
    return _OnTerms(destination, entity, clock, longest_wait_s, wait)


class _OnTerms:
    def __init__(
        self,
        destination: Destination,
        entity: AnyDestination,
        clock: Clock,
        longest_wait_s: float,
        wait: Callable[[float], object] | None,
    ) -> None:
        self._destination, self._entity = destination, entity
        self._buckets = TokenBuckets(clock)
        self._longest_wait_s = longest_wait_s
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination."""
        return self._destination.deliver(self._on_terms(instance))

    def check(self) -> str:
        """As Destination; asks at once."""
        return self._destination.check()

    def close(self) -> None:
        """As Destination; who waits for its turn is told to come again."""
        self._closed.set()
        self._destination.close()

    def _on_terms(self, instance: OutgoingInstance) -> OutgoingInstance:
        instance = self._compressed(instance)
        self._await_turn(instance)
        return instance

    def _compressed(self, instance: OutgoingInstance) -> OutgoingInstance:
        wanted = self._entity.storage_policy.compression
        is_decided = instance.is_syntax_decided or instance.transfer_syntax_uid not in NATIVE
        if wanted is None or is_decided:
            return instance
        # Codecs are slow to import, and only these deliveries need them.
        from shared.dicom.transcode import transcoded

        try:
            asked_by = f"destination {self._entity.name}"
            return transcoded(instance, _TRANSFER_SYNTAXES[wanted], asked_by=asked_by)
        except CannotTranscodeError:
            return instance

    def _await_turn(self, instance: OutgoingInstance) -> None:
        """Raises: DestinationBusyError, which says when to come again."""
        entity, wait_s = self._entity, 0.0
        wanted = []
        if entity.rate_limit_bytes_per_s:
            wanted.append((_BYTES, entity.rate_limit_bytes_per_s, float(instance.part10_size)))
        if entity.rate_limit_per_s:
            wanted.append((_INSTANCES, entity.rate_limit_per_s, 1.0))
        for name, rate_per_s, amount in wanted:
            # In a second as many as that, and one at least.
            burst, at_most_s = max(rate_per_s, 1.0), self._longest_wait_s
            one_s = self._buckets.reserve(name, rate_per_s, burst, amount, at_most_s=at_most_s)
            if one_s > at_most_s:
                raise self._later(one_s)
            wait_s = max(wait_s, one_s)
        if wait_s:
            self._wait(wait_s)
            if self._closed.is_set():
                raise self._later(0.0)

    def _later(self, wait_s: float) -> DestinationBusyError:
        error = DestinationBusyError(self._entity.name, "more than its rate limit is wanted")
        error.retry_after_s = wait_s
        return error


class _BatchingOnTerms(_OnTerms):
    def __init__(
        self,
        destination: BatchingDestination,
        entity: AnyDestination,
        clock: Clock,
        longest_wait_s: float,
        wait: Callable[[float], object] | None,
    ) -> None:
        super().__init__(destination, entity, clock, longest_wait_s, wait)
        self._batching = destination

    def begin(self, instance: OutgoingInstance) -> PendingDelivery:
        """As BatchingDestination."""
        return self._batching.begin(self._on_terms(instance))
