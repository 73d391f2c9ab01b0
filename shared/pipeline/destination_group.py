"""Several destinations that stand in for each other: failover, or Studies shared among them."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from shared.config.entities import GroupDestination, GroupStrategy
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import AxiomError, DestinationMisconfiguredError, DestinationUnavailableError
from shared.ports import Clock, Destination

log = logging.getLogger(__name__)

# A member that could not take an Instance is asked last for so long.
SHUNNED_S = 30.0

# What says nothing about the Instance, so that another member may take it.
_NEXT_MAY = (DestinationUnavailableError, DestinationMisconfiguredError)


class DestinationGroup:
    """A Destination that hands each Instance to one member.

    A member that is away or wrongly configured is passed over; what refuses an Instance for its own
    sake, or has other bytes under its UID, is the group's answer. An Instance whose answer was lost
    goes on to the next member too: better there twice than not at all.
    """

    def __init__(
        self, entity: GroupDestination, member: Callable[[str], Destination], clock: Clock
    ) -> None:
        """`member` gives the Destination of that name; it raises DestinationMisconfiguredError."""
        self._entity, self._member, self._clock = entity, member, clock
        self._shunned_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination; the answer begins with the member's name."""
        study = instance.header.text("StudyInstanceUID") or ""
        return self._first(
            study, lambda name, member: member.deliver(_as_of_member(instance, name))
        )

    def check(self) -> str:
        """As Destination: one member that answers is enough."""
        return self._first("", lambda _, member: member.check())

    def close(self) -> None:
        """As Destination; its members are others' too and stay open."""

    def _first(self, study: str, ask: Callable[[str, Destination], str]) -> str:
        failed: AxiomError | None = None
        may_be_stored = False
        for name in self._in_order(study):
            try:
                answer = ask(name, self._member(name))
            except _NEXT_MAY as error:
                may_be_stored |= getattr(error, "may_be_stored", False)
                self._shun(name, error)
                # Of several the one that may pass is the group's.
                if failed is None or isinstance(error, DestinationUnavailableError):
                    failed = error
            else:
                self._welcome(name)
                return f"{name}: {answer}"
        assert failed is not None  # a group has members
        if isinstance(failed, DestinationUnavailableError):
            failed.may_be_stored = may_be_stored
        raise failed

    def _in_order(self, study: str) -> Sequence[str]:
        members = self._entity.members
        if self._entity.strategy is GroupStrategy.SHARE_STUDIES:
            # By rendezvous, so that another member moves only the Studies that it gets or had.
            members = tuple(sorted(members, key=lambda name: _weight(name, study)))
        now_s = self._clock.monotonic_s()
        with self._lock:
            shunned = {name for name, until in self._shunned_until.items() if until > now_s}
        return sorted(members, key=lambda name: name in shunned)

    def _shun(self, name: str, error: AxiomError) -> None:
        with self._lock:
            is_new = name not in self._shunned_until
            self._shunned_until[name] = self._clock.monotonic_s() + SHUNNED_S
        if is_new:
            log.warning(
                "a member of a group is passed over",
                extra={"destination": self._entity.name, "member": name, "code": error.code},
            )

    def _welcome(self, name: str) -> None:
        with self._lock:
            was_shunned = self._shunned_until.pop(name, None) is not None
        if was_shunned:
            log.info(
                "a member of a group takes Instances again",
                extra={"destination": self._entity.name, "member": name},
            )


def _as_of_member(instance: OutgoingInstance, name: str) -> OutgoingInstance:
    """What the group answered for an earlier one is known to the member that said it."""
    if not instance.earlier_answer:
        return instance
    member, _, answer = instance.earlier_answer.partition(": ")
    return replace(instance, earlier_answer=answer if member == name else "")


def _weight(name: str, study: str) -> bytes:
    return hashlib.sha256(f"{name}\0{study}".encode()).digest()
