"""Several Instances in one request, though each is delivered for itself.

Who wants an Instance delivered puts it with those of others, does something else, and comes back:
the first that comes sends what is there by then, the others get what became of theirs. What a
request that brought several did not settle for an Instance, good or bad, that Instance settles
alone: no other is hurt by it, and its answer is its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    AxiomError,
    DestinationMisconfiguredError,
    DestinationUnavailableError,
)

# Sends Instances together: the answer of each that is stored, by SOP Instance UID. Raises what
# holds for all of them, so that none needs to be tried alone.
Send = Callable[[Sequence[OutgoingInstance]], Mapping[str, str]]


class Batches:
    """The requests to one destination; used by several threads."""

    def __init__(
        self,
        send: Send,
        alone: Callable[[OutgoingInstance], str],
        *,
        most: int,
        most_bytes: int,
    ) -> None:
        """A request brings `most` Instances and `most_bytes` at most, but one at least."""
        self._send, self._alone = send, alone
        self._most, self._most_bytes = most, most_bytes
        self._lock = threading.Lock()
        self._open = _Batch()

    def begin(self, instance: OutgoingInstance) -> Pending:
        """Put it with the others. One that may be there already goes alone: a request with it may
        have failed for its sake.
        """
        if self._most == 1 or instance.redelivery:
            return Pending(self, instance, None)
        size = instance.part10_size
        with self._lock:
            if not self._open.takes(instance, size, self._most, self._most_bytes):
                self._open = _Batch()
            self._open.instances[instance.sop_instance_uid] = instance
            self._open.size += size
            return Pending(self, instance, self._open)

    def _deliver(self, instance: OutgoingInstance, batch: _Batch | None) -> str:
        if batch is not None and self._is_first(batch):
            self._run(batch)
        if batch is None or len(batch.instances) == 1:
            return self._alone(instance)
        batch.is_done.wait()
        if batch.error is not None:
            raise _again(batch.error)
        answer = batch.answers.get(instance.sop_instance_uid)
        return self._alone(instance) if answer is None else answer

    def _is_first(self, batch: _Batch) -> bool:
        with self._lock:
            is_first, batch.is_sent = not batch.is_sent, True
            if batch is self._open:
                self._open = _Batch()
            return is_first

    def _run(self, batch: _Batch) -> None:
        try:
            if len(batch.instances) > 1:
                batch.answers = self._send(list(batch.instances.values()))
        except (DestinationUnavailableError, DestinationMisconfiguredError) as error:
            batch.error = error
        except AxiomError:
            pass  # of one of them, which cannot be read any more, say: each finds out alone
        finally:
            batch.is_done.set()

    def _withdraw(self, instance: OutgoingInstance, batch: _Batch | None) -> bool:
        with self._lock:
            if batch is None or batch.is_sent:
                return batch is None
            del batch.instances[instance.sop_instance_uid]
            return True


class Pending:
    """An Instance that is to be delivered; used by one thread."""

    def __init__(self, batches: Batches, instance: OutgoingInstance, batch: _Batch | None) -> None:
        self._batches, self._instance, self._batch = batches, instance, batch

    def answer(self) -> str:
        """As `Destination.deliver`."""
        return self._batches._deliver(self._instance, self._batch)

    def withdraw(self) -> bool:
        """It is not to be delivered; False if it may be stored already."""
        return self._batches._withdraw(self._instance, self._batch)


class _Batch:
    def __init__(self) -> None:
        self.instances: dict[str, OutgoingInstance] = {}
        self.size = 0
        self.is_sent = False
        self.is_done = threading.Event()
        self.answers: Mapping[str, str] = {}
        self.error: DestinationUnavailableError | DestinationMisconfiguredError | None = None

    def takes(self, instance: OutgoingInstance, size: int, most: int, most_bytes: int) -> bool:
        if self.is_sent or instance.sop_instance_uid in self.instances:
            return False
        is_full = len(self.instances) >= most or self.size + size > most_bytes
        return not (self.instances and is_full)


def _again(
    error: DestinationUnavailableError | DestinationMisconfiguredError,
) -> DestinationUnavailableError | DestinationMisconfiguredError:
    """The same error, for another thread to raise."""
    same = type(error)(*error.args)
    same.may_be_stored = error.may_be_stored
    if isinstance(same, DestinationUnavailableError):
        same.retry_after_s = getattr(error, "retry_after_s", None)
    else:
        same.refuses_all = getattr(error, "refuses_all", False)
    return same
