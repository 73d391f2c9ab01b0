"""The embedded system with sources, and readers that show and give what a test says."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from shared.errors import SourceRefusedError
from shared.messages import InstanceReceived, Topic, decode
from shared.pipeline.polling import Poller
from shared.pipeline.ports import Ports
from shared.pipeline.source_states import state_of
from shared.ports import (
    Buffer,
    FoundInstance,
    FoundStudy,
    MoveProgress,
    Retrieval,
    Retrieved,
)
from tests.data import build
from tests.embedded_system import System

SOURCE = {
    "name": "pacs",
    "type": "dicomweb",
    "base_url": "http://pacs.example/dicom-web",
    "poll_interval": 60,
    "lookback": "1d",
}


class Pacs:
    """A SourceReader over Part 10 files: studies → series → SOP Instance UID → bytes."""

    moves = False
    unit: Literal["study", "series"] = "series"

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, str], bytes] = {}
        self.searched_since: list[datetime | None] = []
        self.listed: list[str] = []
        self.given: list[str] = []
        self.tells_counts = True
        # Called with the UID before an Instance is given; may raise as a source does.
        self.before: Any = lambda uid: None

    def put(self, instance: str, series: str = "s1", study: str = "study", **more: Any) -> str:
        """Have it show one more; its SOP Instance UID."""
        uids = (build.uid(study), build.uid(series), build.uid(instance))
        self.stored[uids] = build.ct(instance=instance, series=series, study=study, **more)
        return uids[2]

    def search(self, since: datetime | None) -> Iterator[FoundStudy]:
        self.searched_since.append(since)
        for study in dict.fromkeys(uids[0] for uids in self.stored):
            count = sum(uids[0] == study for uids in self.stored)
            yield FoundStudy(study, str(count) if self.tells_counts else "")

    def instances(self, study: FoundStudy) -> Iterable[FoundInstance]:
        self.listed.append(study.uid)
        return [FoundInstance(uid, series) for s, series, uid in self.stored if s == study.uid]

    def find(self, keys: Mapping[str, str]) -> Iterator[FoundStudy]:
        for study in self.search(None):
            if keys.get("StudyInstanceUID", study.uid) == study.uid:
                yield study

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        for one in wanted.instances:
            key = (wanted.study_instance_uid, one.series_instance_uid, one.uid)
            if key in self.stored:
                yield Retrieved("", self._chunks(one.uid, self.stored[key]))

    def _chunks(self, uid: str, data: bytes) -> Iterator[Buffer]:
        yield data[:300]
        self.before(uid)
        yield data[300:]
        self.given.append(uid)

    def move(self, wanted: Retrieval) -> Generator[MoveProgress, None, None]:
        raise SourceRefusedError("pacs", "it does not move")

    def done(self, study: FoundStudy, instances: Sequence[FoundInstance]) -> bool:
        return False

    def check(self) -> str:
        return "well"

    def close(self) -> None:
        """Nothing is open."""


class Asking:
    """The system, one source named pacs and its Pacs."""

    def __init__(self, home: Path, **source: Any) -> None:
        self.system = System(home)
        self.pacs = Pacs()
        self.readers: dict[str, Any] = {"pacs": self.pacs}
        self.ports: Ports = replace(
            self.system.ports, open_source=lambda entity: self.readers[entity.name]
        )
        self.configure({**SOURCE, **source})
        self.poller = Poller(self.ports)

    def configure(self, *sources: Mapping[str, Any]) -> None:
        self.ports.configuration.apply({"sources": list(sources)}, by="test")

    def poll(self) -> dict[str, int]:
        """Run what is due until nothing is; what the last poll of pacs counted."""
        self.poller.run()
        counts: dict[str, int] = self.state()["last_poll"]
        return counts

    def later(self, seconds: float) -> None:
        self.system.clock.advance(seconds)

    def state(self, name: str = "pacs") -> Mapping[str, Any]:
        return state_of(name, self.ports)

    def received(self) -> list[str]:
        """SOP Instance UIDs of what waits in the queue, in the order it came."""
        bus: Any = self.ports.bus
        leased = bus.lease([Topic.INSTANCE_RECEIVED], limit=10_000, lease_s=0)
        return [decode(one.data, InstanceReceived).receipt.sop_instance_uid for one in leased]

    def exceptions(self) -> list[Mapping[str, Any]]:
        self.system.work(Topic.EXCEPTION_RAISED)
        page = self.ports.documents.query("exceptions", order_by="last_at", limit=500)
        return [document.data for document in page.documents]
