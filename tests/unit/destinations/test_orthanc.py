"""Delivery by Orthanc's own REST API, to a real one and to a server that only looks like one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.adapters.destinations import create
from shared.adapters.destinations.inventory import inventory
from shared.config import entities
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
)
from shared.ports import Destination
from tests.data import build
from tests.peers import OrthancPeer, StartOrthanc
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.scripted_http import Answer, Request, ScriptedHttp
from tests.unit.destinations.test_create import Secrets

UID = build.uid("ct-1")
Make = Callable[..., Destination]


@pytest.fixture
def to() -> Iterator[Make]:
    made: list[Destination] = []

    def make(base_url: str, **settings: Any) -> Destination:
        made.append(create(entity(base_url, **settings), Secrets()))
        return made[-1]

    yield make
    for one in made:
        one.close()


def entity(base_url: str, **settings: Any) -> entities.OrthancDestination:
    return entities.OrthancDestination(
        name="orthanc", type="orthanc", base_url=base_url, timeout_s=60, **settings
    )


def other_bytes() -> bytes:
    """Another Instance under the same UIDs."""
    return build.ct(changes={0x00080060: build.element(0x00080060, "CS", b"MR")})


def test_what_orthanc_stores_is_what_was_received(
    orthanc: OrthancPeer, to: Make, tmp_path: Path
) -> None:
    destination = to(orthanc.rest_url)
    answer = destination.deliver(outgoing(tmp_path, build.ct()))
    assert orthanc.file(UID) == build.ct()
    assert answer == f"instances/{orthanc.instance_ids()[0]}"
    # Once more is as good.
    assert destination.deliver(outgoing(tmp_path, build.ct())) == answer
    assert destination.check().startswith("Orthanc ")


def test_other_bytes_under_its_uid_are_a_conflict(
    orthanc: OrthancPeer, to: Make, tmp_path: Path
) -> None:
    """Orthanc itself would call the second one a success and keep the first."""
    destination = to(orthanc.rest_url)
    destination.deliver(outgoing(tmp_path, build.ct()))
    with pytest.raises(InstanceConflictError):
        destination.deliver(outgoing(tmp_path, other_bytes()))
    assert orthanc.file(UID) == build.ct()


def test_other_bytes_replace_what_is_there_where_they_shall(
    orthanc: OrthancPeer, to: Make, tmp_path: Path
) -> None:
    destination = to(orthanc.rest_url)
    destination.deliver(outgoing(tmp_path, build.ct()))
    destination.deliver(replace(outgoing(tmp_path, other_bytes()), replaces=True))
    assert orthanc.file(UID) == other_bytes()


def test_what_moved_to_another_series_is_not_there_twice(
    orthanc: OrthancPeer, to: Make, tmp_path: Path
) -> None:
    """Orthanc knows an Instance by all the UIDs above it, and by its patient."""
    destination = to(orthanc.rest_url)
    earlier = destination.deliver(outgoing(tmp_path, build.ct()))
    moved = outgoing(tmp_path, build.ct(series="another-series"))
    answer = destination.deliver(replace(moved, replaces=True, earlier_answer=earlier))
    assert [f"instances/{one}" for one in orthanc.instance_ids()] == [answer]


def test_an_orthanc_that_overwrites_is_asked_first(
    start_orthanc: StartOrthanc, to: Make, tmp_path: Path
) -> None:
    """It would replace what somebody else has stored there, and say Success."""
    orthanc = start_orthanc(OverwriteInstances=True)
    requests.post(f"{orthanc.rest_url}/instances", data=build.ct(), timeout=60).raise_for_status()
    destination = to(orthanc.rest_url)
    destination.deliver(outgoing(tmp_path, build.ct()))
    with pytest.raises(InstanceConflictError):
        destination.deliver(outgoing(tmp_path, other_bytes()))
    assert orthanc.file(UID) == build.ct()


def test_what_orthanc_cannot_read_is_refused_in_its_own_words(
    orthanc: OrthancPeer, to: Make, tmp_path: Path
) -> None:
    without_uids = dict.fromkeys((0x0020000D, 0x0020000E, 0x00080018))
    with pytest.raises(DestinationRefusedError, match="Inexistent tag"):
        to(orthanc.rest_url).deliver(outgoing(tmp_path, build.ct(changes=without_uids)))


def test_it_says_what_it_holds(orthanc: OrthancPeer, to: Make, tmp_path: Path) -> None:
    destination = to(orthanc.rest_url)
    for name in ("a", "b"):
        destination.deliver(outgoing(tmp_path, build.ct(instance=name)))
    with inventory(entity(orthanc.rest_url), Secrets(), storage_root=None) as held:
        assert held.instances(build.uid("study")) == {build.uid("a"), build.uid("b")}
        assert held.instances(build.uid("no-such-study")) == set()


_SYSTEM = b'{"Version": "1.12.1", "ApiVersion": 21, "OverwriteInstances": false}'


def _stored(status: str) -> bytes:
    identifier = "-".join(["0123abcd"] * 5)
    return f'{{"ID": "{identifier}", "Status": "{status}"}}'.encode()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, _stored("FilteredOut")), DestinationRefusedError),
        (Answer(200, _stored("StorageFull")), DestinationUnavailableError),
        (Answer(200, _stored("Failure")), DestinationUnavailableError),
        (Answer(200, b"<html>Sign in</html>"), DestinationMisconfiguredError),
        (Answer(200, b'{"Status": "Success", "ID": "../x"}'), DestinationMisconfiguredError),
        (Answer(200, b"[" * 100_000), DestinationMisconfiguredError),
        (Answer(401, b""), DestinationMisconfiguredError),
        (Answer(404, b""), DestinationMisconfiguredError),
        (Answer(503, b"{}"), DestinationUnavailableError),
        (Answer(507, b'{"Message": "full"}'), DestinationUnavailableError),
    ],
)
def test_every_other_answer_has_its_meaning(
    answer: Answer, error: type[Exception], to: Make, tmp_path: Path
) -> None:
    def respond(request: Request) -> Answer:
        return Answer(200, _SYSTEM) if request.path == "/system" else answer

    with ScriptedHttp(respond) as server, pytest.raises(error):
        to(server.url).deliver(outgoing(tmp_path, build.ct()))


def test_a_server_that_is_no_orthanc_is_not_there(to: Make) -> None:
    with (
        ScriptedHttp(lambda _: Answer(200, b'{"name": "something else"}')) as server,
        pytest.raises(DestinationMisconfiguredError, match="not as Orthanc"),
    ):
        to(server.url).check()
