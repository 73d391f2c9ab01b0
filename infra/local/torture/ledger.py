"""What was sent, what was acknowledged, and what came out at the peers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping

from infra.local.torture.instances import Instance


class Ledger:
    """Every Instance that was made, and those whose senders were told that they are safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Instance] = {}
        self._acknowledged: dict[str, int] = {}

    def made(self, instance: Instance) -> None:
        """Enter an Instance before it is sent."""
        with self._lock:
            self._made[instance.sop_instance_uid] = instance

    def acknowledge(self, sop_instance_uids: Iterable[str]) -> None:
        """Their senders were answered with success."""
        with self._lock:
            for uid in sop_instance_uids:
                self._acknowledged[uid] = self._acknowledged.get(uid, 0) + 1

    def find(self, sop_instance_uid: str) -> Instance | None:
        """The Instance of that UID; None for a stranger."""
        with self._lock:
            return self._made.get(sop_instance_uid)

    @property
    def acknowledged(self) -> Mapping[str, Instance]:
        """The acknowledged Instances by SOP Instance UID."""
        with self._lock:
            return {uid: self._made[uid] for uid in self._acknowledged}

    @property
    def counts(self) -> tuple[int, int]:
        """How many were made, and how many acknowledged."""
        with self._lock:
            return len(self._made), len(self._acknowledged)


class Inbox:
    """What one destination has taken: how often each Instance, and whether the bytes were right."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._right: dict[str, int] = {}
        self._wrong: dict[str, int] = {}

    def take(self, sop_instance_uid: str, data_set: bytes) -> None:
        """Keep one copy."""
        instance = self._ledger.find(sop_instance_uid)
        is_right = instance is not None and instance.is_right(data_set)
        with self._lock:
            into = self._right if is_right else self._wrong
            into[sop_instance_uid] = into.get(sop_instance_uid, 0) + 1

    def __contains__(self, sop_instance_uid: str) -> bool:
        """True if a right copy is there."""
        with self._lock:
            return sop_instance_uid in self._right

    def __len__(self) -> int:
        with self._lock:
            return len(self._right)

    @property
    def wrong(self) -> Collection[str]:
        """What came with other bytes than it should, strangers included."""
        with self._lock:
            return sorted(self._wrong)

    @property
    def duplicates(self) -> int:
        """Copies beyond the first of each Instance."""
        with self._lock:
            return sum(self._right.values()) - len(self._right)
