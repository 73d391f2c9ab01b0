"""Start two systems and a stock peer, send, wait until all is settled, check, stop."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from infra.local.addresses import claim_port
from infra.local.demo.plan import (
    ARCHIVE,
    EXHIBITS,
    PACS,
    PACS_AE_TITLE,
    RULESET,
    WEB,
    Exhibit,
    write_exhibits,
)
from infra.local.demo.verify import Check, verify_arrival
from infra.local.part import PARTS, Part
from infra.local.records import Record, find_records
from infra.local.sending import examine, send
from infra.local.supervisor import Supervisor
from infra.local.terminal import CommandFailedError
from shared import bootstrap
from shared.adapters.destinations.association import Peer
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.environment import Environment
from shared.pipeline.ports import Ports

SETTLED_WITHIN_S = 30.0

_ASK_EVERY_S = 0.05
_LOOPBACK = "127.0.0.1"

# The receiving system needs no DIMSE side.
_RECEIVING_PARTS = (
    Part("http", "infra.local.http", 0),
    *(part for part in PARTS if part.name not in ("http", "gateway")),
)


@dataclass(slots=True)
class Story:
    """What became of one exhibit."""

    exhibit: Exhibit
    path: Path
    answer: str = ""  # what the sender was told: "0000H", "200"
    sop_instance_uid: str = ""
    record: Record | None = None
    exceptions: list[Mapping[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole demo."""

    stories: Sequence[Story]
    checks: Sequence[Check]  # those that are not about one exhibit
    output: Path
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether everything that was claimed is true."""
        return all(
            check.holds for check in (*self.checks, *(c for s in self.stories for c in s.checks))
        )


def run_demo(folder: Path, tell: Callable[[str], None]) -> Outcome:
    """Run the demo below `folder`, which is empty.

    Raises: CommandFailedError if a system does not start, or does not settle.
    """
    began_s = time.monotonic()
    sent = write_exhibits(folder / "sent")
    stories = [Story(exhibit, sent[exhibit.file]) for exhibit in EXHIBITS]
    with contextlib.ExitStack() as stack:
        tell("starting two systems and a stock pynetdicom peer on free ports")
        log = stack.enter_context((folder / "log.jsonl").open("ab"))
        nodes: list[_Node] = []
        stack.callback(_stop, nodes)
        main = _Node(folder / "home", log)
        nodes.append(main)
        receiving = _Node(folder / "receiving-home", log, parts=_RECEIVING_PARTS)
        nodes.append(receiving)
        receiving.start(_receiving_configuration(folder))
        pacs_port = _start_peer(folder / PACS, stack)
        main.start(_configuration(folder, receiving, pacs_port))
        for node in nodes:
            node.supervisor.wait_until_ready()
        tell("sending over C-STORE and STOW-RS")
        _send_all(stories, main)
        tell("waiting until every Instance is settled")
        for node in nodes:
            _await_empty_queue(node.ports)
        unexpected = _collect(stories, main.ports)
        tell("stopping, and checking what arrived against what was sent")
    for story in stories:
        story.checks = list(_verify(story, folder))
    checks = [Check("no exception besides those expected", not unexpected, ", ".join(unexpected))]
    return Outcome(stories, checks, folder, round(time.monotonic() - began_s, 1))


class _Node:
    """One running system of the demo, and its ports in this process."""

    def __init__(self, home: Path, log: IO[bytes], *, parts: Sequence[Part] | None = None) -> None:
        self.api_key = secrets.token_urlsafe(24)
        environment = replace(
            Environment.read({}), home=home, http_port=0, dimse_port=0, api_key=self.api_key
        )
        self.supervisor = Supervisor(environment, output=log, parts=parts)
        self.ports = bootstrap.embedded(environment)

    def start(self, configuration: dict[str, Any]) -> None:
        """Start it with this configuration: no part may have read another one before."""
        self.ports.configuration.apply(configuration, by="demo")
        self.supervisor.start()

    @property
    def dicomweb_url(self) -> str:
        return f"{self.supervisor.addresses.url}/api/v1/dicomweb"


def _stop(nodes: Sequence[_Node]) -> None:
    with ThreadPoolExecutor(len(nodes) or 1) as pool:
        list(pool.map(lambda node: node.supervisor.stop(), nodes))


def _start_peer(folder: Path, stack: contextlib.ExitStack) -> int:
    # Imported while the systems start: pynetdicom takes a second.
    from infra.local.demo.peer import StockPeer

    port = claim_port(0, _LOOPBACK, "AXIOM_DIMSE")
    peer = StockPeer(folder, port)
    peer.start()
    stack.callback(peer.stop)
    return port


def _configuration(folder: Path, receiving: _Node, pacs_port: int) -> dict[str, Any]:
    return {
        "destinations": [
            {"name": ARCHIVE, "type": "filesystem", "path": str(folder / ARCHIVE)},
            {
                "name": PACS,
                "type": "dimse",
                "host": _LOOPBACK,
                "port": pacs_port,
                "ae_title": PACS_AE_TITLE,
            },
            {
                "name": WEB,
                "type": "dicomweb",
                "base_url": receiving.dicomweb_url,
                "auth_type": "bearer_token",
                "credentials": {"token": receiving.api_key},
            },
        ],
        "rulesets": [RULESET],
        "settings": {"default_route": [ARCHIVE]},
    }


def _receiving_configuration(folder: Path) -> dict[str, Any]:
    return {
        "destinations": [{"name": WEB, "type": "filesystem", "path": str(folder / WEB)}],
        "settings": {"default_route": [WEB]},
    }


def _send_all(stories: Sequence[Story], node: _Node) -> None:
    addresses = node.supervisor.addresses
    peer = Peer(
        addresses.dimse_host, addresses.dimse_port, addresses.ae_title, "DEMO_CT", 131072, 30.0
    )
    over_dimse = {story.path: story for story in stories if story.exhibit.sent_by == "C-STORE"}
    for result in send([examine(path) for path in over_dimse], peer):
        story = over_dimse[result.path]
        story.answer = result.dimse_status or result.reason
        story.sop_instance_uid = result.sop_instance_uid
    for story in stories:
        if story.path not in over_dimse:
            story.answer = _post(story.path, node)
            story.sop_instance_uid = examine(story.path).sop_instance_uid


def _post(path: Path, node: _Node) -> str:
    """STOW-RS of one file (PS3.18 10.5); returns the HTTP status code."""
    addresses = node.supervisor.addresses
    connection = http.client.HTTPConnection(addresses.http_host, addresses.http_port, timeout=30)
    headers = {"Content-Type": "application/dicom", "Authorization": f"Api-Key {node.api_key}"}
    with contextlib.closing(connection):
        connection.request("POST", "/api/v1/dicomweb/studies", path.read_bytes(), headers)
        return str(connection.getresponse().status)


def _await_empty_queue(ports: Ports) -> None:
    """Ask until nothing waits or is worked on: what a stage hands on is queued before its own
    message leaves the queue.

    Raises: CommandFailedError.
    """
    assert isinstance(ports.bus, SqliteMessageBus)
    deadline_s = time.monotonic() + SETTLED_WITHIN_S
    while waiting := ports.bus.depth():
        if time.monotonic() > deadline_s:
            topics = ", ".join(f"{depth.messages} in {topic}" for topic, depth in waiting.items())
            raise CommandFailedError(f"not settled after {SETTLED_WITHIN_S:.0f} s: {topics}")
        time.sleep(_ASK_EVERY_S)


def _collect(stories: Sequence[Story], ports: Ports) -> list[str]:
    """What the system has on record of each story; returns what no story accounts for."""
    for story in stories:
        if story.sop_instance_uid:
            found, _ = find_records(ports, {"sop_instance_uid": story.sop_instance_uid}, limit=1)
            story.record = found[0] if found else None
    unexpected = []
    for document in ports.exceptions.list(limit=1000).documents:
        entry = document.data
        expecting = [s for s in stories if entry["code"] in s.exhibit.refused_as]
        if expecting:
            expecting[0].exceptions.append(entry)
        else:
            unexpected.append(f"{entry['code']}: {entry['message']}")
    return unexpected


def _verify(story: Story, folder: Path) -> Iterator[Check]:
    exhibit, name = story.exhibit, story.exhibit.file
    if exhibit.refused_as:
        refused = story.answer[:1] in ("A", "C", "4") and story.record is None
        yield Check(f"{name}: the sender was refused", refused, story.answer)
        yield Check(
            f"{name}: one entry in the exception log",
            len(story.exceptions) == 1,
            ", ".join(entry["code"] for entry in story.exceptions),
        )
        return
    yield Check(f"{name}: the sender got Success", story.answer in ("0000H", "200"), story.answer)
    record = story.record
    yield Check(f"{name}: is on record", record is not None)
    if record is None:
        return
    rules = tuple(record.instance["matched_rules"])
    yield Check(f"{name}: matched the rules it should", rules == exhibit.rules, ", ".join(rules))
    went_to = tuple(record.destinations)
    yield Check(f"{name}: goes where it should", went_to == exhibit.destinations, str(went_to))
    for destination in exhibit.destinations:
        state = record.state_of(destination)
        yield Check(f"{name} at {destination}: delivered", state == "delivered", state)
        arrived = next((folder / destination).rglob(f"{story.sop_instance_uid}.dcm"), None)
        yield from verify_arrival(story.path, arrived, destination, exhibit.changes)
