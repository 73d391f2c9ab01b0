"""How often each stage asks each store, counted while Instances flow through the real stages."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

from infra.local.benching.instances import synthetic_ct
from shared import bootstrap
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.environment import Environment
from shared.messages import (
    DeliveryRequested,
    InstanceAccepted,
    InstanceReceived,
    Source,
    Topic,
    decode,
)
from shared.pipeline import deliver, rules, validate
from shared.pipeline.ports import Ports
from shared.pipeline.retention import Cleaner

SOURCE = Source("dimse", "gateway", calling_ae_title="CT1", peer_address="10.1.2.3")


@dataclass(slots=True)
class Work:
    """What one stage did for all Instances together."""

    operations: Counter[str] = field(default_factory=Counter)
    published_bytes: list[int] = field(default_factory=list)
    cpu_s: float = 0.0


class Clock:
    """Stands still until told, so that what is counted does not depend on the machine."""

    def __init__(self) -> None:
        self._now, self._s = datetime(2026, 11, 21, 10, tzinfo=UTC), 1000.0

    def now(self) -> datetime:
        """The wall clock."""
        return self._now

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary point."""
        return self._s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._s += seconds


def count(instances: int, *, side: int = 512) -> dict[str, Work]:
    """Receive, validate, apply rules to, deliver and at last clean up so many Instances.

    One destination takes each of them. What processes ask once, such as their first look at the
    configuration, is not counted.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "in").mkdir()
        files = synthetic_ct(folder / "in", instances + 1, rows=side, columns=side)
        clock = Clock()
        environment = Environment.read(
            {"AXIOM_HOME": str(folder / "home"), "AXIOM_PLATFORM": "embedded"}
        )
        ports = bootstrap.embedded(environment, clock)
        settings = {"min_free_bytes": 0, "default_route": ["primary-storage"]}
        ports.configuration.apply({"settings": settings}, by="count")
        _flow(files[:1], ports)  # whoever is first asks for what is kept in memory from then on
        done = _flow(files[1:], ports)
        done["clean_up"] = _clean_up(clock, ports)
        ports.destinations.close()
        return done


def _flow(files: list[Path], ports: Ports) -> dict[str, Work]:
    stages: dict[str, tuple[str, Callable[[bytes], None]]] = {
        "validate_instance": (
            Topic.INSTANCE_RECEIVED,
            lambda data: validate.run(decode(data, InstanceReceived), ports),
        ),
        "apply_rules": (
            Topic.INSTANCE_ACCEPTED,
            lambda data: rules.run(decode(data, InstanceAccepted), ports),
        ),
        "deliver_instance": (
            Topic.DELIVERY_REQUESTED,
            lambda data: deliver.run(decode(data, DeliveryRequested), ports),
        ),
    }
    done: dict[str, Work] = {"gateway": Work()}
    with noted(done["gateway"]):
        for file in files:
            with ports.receiver.begin(SOURCE) as staging:
                staging.write(file.read_bytes())
                staging.commit()
    bus = ports.bus
    assert isinstance(bus, SqliteMessageBus)
    for stage, (topic, run) in stages.items():
        done[stage] = Work()
        leased = bus.lease([topic], limit=len(files) + 1, lease_s=600)
        with noted(done[stage]):
            for message in leased:
                run(message.data)
        bus.settle(acknowledged=[message.message_id for message in leased], later=[])
    return done


def _clean_up(clock: Clock, ports: Ports) -> Work:
    """All that is deleted of the Instances: their files, and later their records."""
    done = Work()
    settings = ports.configuration.get().settings
    cleaner = Cleaner(ports)
    with noted(done):
        for kept_s in (settings.retention_s, settings.record_retention_s):
            clock.advance(kept_s + 86_400)
            cleaner.run()
    return done


@contextmanager
def noted(work: Work) -> Iterator[None]:
    """Count what is asked of the stores meanwhile as Google counts it."""
    counted = work.operations

    def counting(kinds: Callable[..., Counter[str]]) -> Callable[..., Any]:
        def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                answer = method(*arguments, **named)
                counted.update(kinds(answer, **named))
                return answer

            return call

        return wrap

    def each(kind: str) -> Callable[..., Counter[str]]:
        return lambda answer, **named: Counter([kind])

    def writes(answer: Any, **named: Any) -> Counter[str]:
        return Counter({"write": 1 + len(named.get("also", ()))})

    # A query costs its documents, one at the least; an object that is opened is looked at first
    # and then read: in one request, for what reads it reads it once.
    counters: dict[Any, dict[str, Callable[..., Counter[str]]]] = {
        SqliteDocumentStore: {
            "get": each("read"),
            "query": lambda page, **named: Counter({"read": max(1, len(page.documents))}),
            "count": each("read"),
            "create": writes,
            "replace": writes,
            "put": each("write"),
            "delete": each("delete"),
        },
        FolderObjectStore: {
            "create": each("class_a"),
            "open": lambda reader, **named: Counter({"class_b": 2}),
            "stat": each("class_b"),
        },
    }
    publish, names = SqliteMessageBus.publish, FolderObjectStore.list

    def publishing(self: SqliteMessageBus, messages: Any) -> None:
        messages = list(messages)
        work.published_bytes.extend(len(message.data) for message in messages)
        publish(self, messages)

    def listing(self: FolderObjectStore, prefix: str = "") -> Iterator[str]:
        for number, name in enumerate(names(self, prefix)):
            if number % 1000 == 0:
                counted["list"] += 1
            yield name

    began_s = process_time()
    patches = [
        patch.object(adapter, name, counting(kinds)(getattr(adapter, name)))
        for adapter, methods in counters.items()
        for name, kinds in methods.items()
    ]
    patches.append(patch.object(SqliteMessageBus, "publish", publishing))
    patches.append(patch.object(FolderObjectStore, "list", listing))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
        work.cpu_s += process_time() - began_s
