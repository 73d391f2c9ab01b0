"""What is going on for a request of Query/Retrieve, one step at a time (PS3.4 C.4).

A job is an iterator that the association's thread drives between the peer's messages, so that a
C-CANCEL, a release or an abort is noticed after the step at hand. Each step gives a Reply that is
to be sent, or None; the last Reply is the final response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from scp_gateway.dimse_messages import SubOperations
from scp_gateway.dimse_status import SUCCESS, Answer, Status
from shared.adapters.destinations.association import Peer
from shared.config.query_retrieve import QueryRetrieve
from shared.dicom.query import Found, Key, Match, Query
from shared.ports import FoundInstance, Retrieval, Retrieved


class Archive(Protocol):
    """What the gateway uses of `shared.adapters.archive.Archive`."""

    def find(self, query: Query) -> Iterator[Match | None]: ...
    def instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]: ...
    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]: ...


class Worklist(Protocol):
    """What the gateway uses of `shared.adapters.worklists.Worklist`."""

    def find(self, keys: Sequence[Key]) -> Iterator[Match | None]: ...


class Archives(Protocol):
    """What the gateway uses of `shared.adapters.archives.Archives`."""

    @property
    def max_instance_bytes(self) -> int: ...
    def of(self, name: str) -> Archive: ...
    def worklist(self, name: str) -> Worklist: ...
    def matches_fuzzily(self, services: QueryRetrieve) -> bool: ...
    def move_destination(
        self, services: QueryRetrieve, ae_title: str, *, calling_ae_title: str, timeout_s: float
    ) -> Peer | None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """One response."""

    answer: Answer
    identifier: bytes = b""
    counts: SubOperations | None = None


Job = Iterator[Reply | None]


@dataclass(slots=True)
class Control:
    """What the association tells a job that it runs."""

    is_cancelled: bool = False
    # The job waits for the response to its own request; the Status of that, once it is here.
    is_waiting: bool = False
    response: int = 0

    def wait(self) -> None:
        """The job goes on once `answer` is called."""
        self.is_waiting = True

    def answer(self, status: int) -> None:
        """The response has come; one to nothing that was asked is ignored."""
        if self.is_waiting:
            self.is_waiting, self.response = False, status


def finding(
    matches: Iterator[Match | None], encode: Callable[[Found], bytes], control: Control
) -> Job:
    """C-FIND (PS3.4 C.4.1, K.4.1). Raises: SourceUnavailableError and its kin."""
    for match in matches:
        if control.is_cancelled:
            yield Reply(Answer(Status.CANCELLED))
            return
        if match is None:
            yield None
            continue
        status = Status.PENDING if match.is_certain else Status.PENDING_NOT_ALL_KEYS
        yield Reply(Answer(status), encode(match.found))
    yield Reply(SUCCESS)
