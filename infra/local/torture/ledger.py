"""What was sent, what was acknowledged, and what came out at the peers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from infra.local.torture.instances import Instance


class Ledger:
    """Every Instance that was made, and those whose senders were told that they are safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, list[Instance]] = {}
        self._acknowledged: dict[Instance, int] = {}

    def made(self, instance: Instance) -> None:
        """Enter an Instance before it is sent."""
        with self._lock:
            self._made.setdefault(instance.sop_instance_uid, []).append(instance)

    def acknowledge(self, instances: Iterable[Instance]) -> None:
        """Their senders were answered with success."""
        with self._lock:
            for instance in instances:
                self._acknowledged[instance] = self._acknowledged.get(instance, 0) + 1

    def find(self, sop_instance_uid: str) -> Sequence[Instance]:
        """The versions of that UID; none for a stranger."""
        with self._lock:
            return tuple(self._made.get(sop_instance_uid, ()))

    @property
    def acknowledged(self) -> Sequence[Instance]:
        """The acknowledged Instances, each once."""
        with self._lock:
            return tuple(self._acknowledged)

    @property
    def counts(self) -> tuple[int, int]:
        """How many were made, and how many acknowledged."""
        with self._lock:
            return sum(map(len, self._made.values())), len(self._acknowledged)


class Inbox:
    """What one destination has taken: how often each Instance, and whether the bytes were right."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._right: Counter[Instance] = Counter()
        self._wrong: Counter[str] = Counter()

    def take(self, sop_instance_uid: str, data_set: bytes) -> None:
        """Keep one copy."""
        right = [i for i in self._ledger.find(sop_instance_uid) if i.is_right(data_set)]
        with self._lock:
            if right:
                self._right[right[0]] += 1
            else:
                self._wrong[sop_instance_uid] += 1

    def __contains__(self, instance: Instance) -> bool:
        """True if a right copy is there."""
        with self._lock:
            return instance in self._right

    def __len__(self) -> int:
        with self._lock:
            return len(self._right)

    def versions(self, instance: Instance) -> Collection[str]:
        """The Series Instance UIDs of the versions of it that are there."""
        known = self._ledger.find(instance.sop_instance_uid)
        return {one.series_instance_uid for one in known if one in self}

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
