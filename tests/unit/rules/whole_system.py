"""One ruleset in the whole embedded system: what is sent in, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from functions.complete_studies import main as timer
from shared import bootstrap
from shared.dicom.header import Header
from shared.dicom.validation import DEFAULT_SEVERITIES
from shared.environment import Environment
from shared.errors import RefusedByRuleError
from shared.messages import Receipt, Source
from shared.pipeline.ports import Ports
from shared.pipeline.push import PushRequest
from shared.rules.decision import Facts
from shared.rules.sample import sample_header
from tests.data import build
from tests.fakes import FakeClock
from tests.unit.test_pipeline import pump

EXPLICIT = "1.2.840.10008.1.2.1"
TAKEN, REFUSED = "taken", "refused"


@dataclass
class WholeSystem:
    """The system with one ruleset, a folder for each destination that it names."""

    ports: Ports
    home: Path
    clock: FakeClock
    ruleset: str
    receipts: list[Receipt] = field(default_factory=list)

    def send(self, attributes: Mapping[str, Any], facts: Facts) -> str:
        """Send an Instance that has these Attributes and no more than it must; TAKEN or REFUSED."""
        return self.send_file(part10(attributes, len(self.receipts)), facts)

    def send_file(self, data: bytes, facts: Facts) -> str:
        self.clock.set_wall_clock((facts.received_at - self.clock.now()).total_seconds())
        source = Source(
            facts.source_type,
            facts.source_name,
            facts.calling_ae_title,
            facts.called_ae_title,
            facts.peer_address,
        )
        with self.ports.receiver.begin(source) as staging:
            staging.write(data)
            try:
                self.receipts.append(staging.commit())
            except RefusedByRuleError:
                pump(self.ports)
                return REFUSED
        pump(self.ports)
        return TAKEN

    def wait(self, seconds: float) -> None:
        """Let time pass, and the timer do what is due then."""
        self.clock.advance(seconds)
        answer: Any = cast(Any, timer.complete_studies)(PushRequest(b"", {}))
        assert answer[1] == 204
        pump(self.ports)

    def instance(self, number: int = -1) -> Mapping[str, Any]:
        """The document of an Instance that was sent."""
        found = self.ports.documents.get("instances", self.receipts[number].receipt_id)
        assert found is not None
        return found.data

    def destinations(self, number: int = -1) -> list[str]:
        """Where an Instance was sent to and has arrived."""
        planned = [plan["destination"] for plan in self.instance(number)["deliveries"]]
        for name in planned:
            assert self.delivered(name, number)
        return planned

    def delivered(self, destination: str, number: int = -1) -> bytes:
        """What a destination has of an Instance."""
        receipt = self.receipts[number]
        known = self.ports.documents.get("deliveries", f"{receipt.receipt_id}:{destination}")
        assert known is not None
        assert known.data["state"] == "delivered", known.data
        files = list((self.home / "storage" / destination).rglob("*.dcm"))
        named = [file for file in files if file.stem == receipt.sop_instance_uid]
        (file,) = named or files  # a rule may have given it another name
        return file.read_bytes()

    def failed_rules(self) -> list[str]:
        """The rules, without their ruleset's name, that the exception log complains of."""
        entries = [entry.data for entry in self.ports.exceptions.list().documents]
        return [
            entry["message"].split(": ")[0].rpartition("/")[2]
            for entry in entries
            if entry["code"] == "rule-failed"
        ]

    def verdict(self, number: int = -1) -> str:
        """What became of an Instance, in the words of `tests:`."""
        data = self.instance(number)
        if data["state"] == "held" and data["reason"].startswith("no rule sends it"):
            return "route"  # to a default route, which is not there
        return {"routed": "route", "held": "hold", "discarded": "discard"}[data["state"]]


@contextmanager
def whole_system(
    document: Mapping[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> Iterator[WholeSystem]:
    """The system with this ruleset; there is no default route, and nothing that validation finds
    keeps an Instance out.
    """
    clock = FakeClock()
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(home)}), clock)
    monkeypatch.setattr(bootstrap, "from_environment", lambda: ports)
    timer._collector.cache_clear()
    names = destinations_of(document)
    ports.configuration.apply(
        {
            "destinations": [{"name": n, "type": "filesystem", "path": n} for n in names],
            "rulesets": [dict(document)],
            "settings": {
                "default_route": [],
                "min_free_bytes": 0,
                "validation": dict.fromkeys(DEFAULT_SEVERITIES, "ignore"),
                **settings,
            },
        },
        by="test",
    )
    clock.advance(1)  # what a process knows of the configuration may be half a second old
    try:
        yield WholeSystem(ports, home, clock, str(document["name"]))
    finally:
        ports.destinations.close()


def destinations_of(document: Mapping[str, Any]) -> list[str]:
    """Every destination that the rules name."""
    names: dict[str, None] = {}
    for rule in document["rules"]:
        for target in (*rule.get("destinations", ()), *rule.get("storage_backends", ())):
            names[target if isinstance(target, str) else target["name"]] = None
    return list(names)


def part10(attributes: Mapping[str, Any], number: int = 0) -> bytes:
    """A file with these Attributes, the UIDs that none can be without, and a Body."""
    usual = {
        "SOPClassUID": build.CT_IMAGE_STORAGE,
        "SOPInstanceUID": build.uid(f"instance {number}"),
        "StudyInstanceUID": build.uid("study"),
        "SeriesInstanceUID": build.uid("series"),
    }
    header = sample_header({**usual, **attributes})
    pixels = build.element(build.PIXEL_DATA, "OW", bytes(range(128)))
    return build.part10(
        header.data[header.meta_end :] + pixels,
        sop_class_uid=header.text("SOPClassUID") or "",
        sop_instance_uid=header.text("SOPInstanceUID") or "",
        transfer_syntax_uid=EXPLICIT,
    )


def changed(received: bytes, delivered: bytes) -> dict[str, str | None]:
    """The text of every Attribute of the data set that differs, None for one that is gone; what
    tells of the change itself and creators of private blocks left out.
    """
    before, after = (Header.parse(data, file_size=len(data)) for data in (received, delivered))
    found: dict[str, str | None] = {}
    for header in (before, after):
        for path, element in header.walk():
            tag = path.last.tag
            is_creator = tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF
            if len(path.steps) > 1 or is_creator or element.vr == "SQ" or not tag & 0xFFFF:
                continue
            if before.text(path) != after.text(path):
                found[str(path)] = after.text(path)
    return found
