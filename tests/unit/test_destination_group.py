"""Destinations that stand in for each other: each Instance goes to one that takes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
    InvalidConfigurationError,
)
from shared.pipeline.destination_group import SHUNNED_S, DestinationGroup
from shared.ports import Destination
from tests.data import build
from tests.embedded_system import System
from tests.fakes import FakeClock
from tests.unit.destinations.received import outgoing


class Member:
    """A destination that does as a test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: list[str] = []
        self.asked = 0
        self.fails: Exception | None = None

    def deliver(self, instance: OutgoingInstance) -> str:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        self.taken.append(instance.sop_instance_uid)
        return "0000H"

    def check(self) -> str:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return "C-ECHO 0000H"

    def close(self) -> None:
        raise AssertionError("members are others' too")


class Group:
    """A group over members a, b and c."""

    def __init__(self, strategy: str, folder: Path) -> None:
        from shared.config.entities import GroupDestination

        self.clock = FakeClock()
        self.members = {name: Member(name) for name in "abc"}
        entity = GroupDestination.model_validate(
            {"name": "pacs", "type": "group", "members": tuple("abc"), "strategy": strategy}
        )
        self.group = DestinationGroup(entity, self._member, self.clock)
        self.folder = folder

    def _member(self, name: str) -> Destination:
        return self.members[name]

    def deliver(self, **attributes: Any) -> str:
        return self.group.deliver(outgoing(self.folder, build.ct(**attributes)))

    def fail(self, name: str, **details: Any) -> None:
        error = DestinationUnavailableError(name, "connection refused")
        for key, value in details.items():
            setattr(error, key, value)
        self.members[name].fails = error


@pytest.fixture
def failover(tmp_path: Path) -> Group:
    return Group("failover", tmp_path)


@pytest.fixture
def sharing(tmp_path: Path) -> Group:
    return Group("share_studies", tmp_path)


class TestFailover:
    def test_the_first_gets_all_while_it_can(self, failover: Group) -> None:
        assert {failover.deliver(instance=str(n)) for n in range(3)} == {"a: 0000H"}

    def test_the_next_takes_over_and_the_first_is_left_in_peace_for_a_while(
        self, failover: Group
    ) -> None:
        failover.fail("a")
        assert failover.deliver(instance="1") == "b: 0000H"
        assert failover.deliver(instance="2") == "b: 0000H"
        assert failover.members["a"].asked == 1
        failover.clock.advance(SHUNNED_S)
        failover.members["a"].fails = None
        assert failover.deliver(instance="3") == "a: 0000H"

    def test_what_is_wrongly_configured_is_passed_over_too(self, failover: Group) -> None:
        failover.members["a"].fails = DestinationMisconfiguredError("a", "no such host")
        assert failover.deliver() == "b: 0000H"

    def test_where_nobody_can_it_is_an_outage_that_may_pass(self, failover: Group) -> None:
        failover.members["a"].fails = DestinationMisconfiguredError("a", "no such host")
        failover.fail("b", may_be_stored=True)
        failover.fail("c", may_be_stored=False)
        with pytest.raises(DestinationUnavailableError) as caught:
            failover.deliver()
        # One of them may have it: whoever asks again has to know.
        assert caught.value.may_be_stored
        # All are shunned, so all are asked: none is given up for good.
        failover.members["c"].fails = None
        assert failover.deliver() == "c: 0000H"

    def test_where_none_had_it_nobody_need_think_so(self, failover: Group) -> None:
        for name in "abc":
            failover.fail(name, may_be_stored=False)
        with pytest.raises(DestinationUnavailableError) as caught:
            failover.deliver()
        assert not caught.value.may_be_stored

    @pytest.mark.parametrize(
        "error",
        [DestinationRefusedError("a", "C000H"), InstanceConflictError("1.2", "x", "y")],
    )
    def test_what_is_wrong_with_the_instance_is_the_answer(
        self, failover: Group, error: Exception
    ) -> None:
        failover.members["a"].fails = error
        with pytest.raises(type(error)):
            failover.deliver()
        assert failover.members["b"].asked == 0

    def test_one_member_that_answers_is_enough(self, failover: Group) -> None:
        failover.fail("a")
        assert failover.group.check() == "b: C-ECHO 0000H"
        failover.group.close()


class TestSharing:
    def test_a_study_stays_together_and_all_get_some(self, sharing: Group) -> None:
        answers = {
            study: {
                sharing.deliver(study=f"study-{study}", instance=f"{study}.{n}") for n in range(2)
            }
            for study in range(60)
        }
        assert all(len(members) == 1 for members in answers.values())
        shares = Counter(next(iter(members)) for members in answers.values())
        assert len(shares) == 3
        assert min(shares.values()) >= 8

    def test_only_the_studies_of_one_that_is_away_move(self, sharing: Group) -> None:
        def places() -> dict[int, str]:
            return {n: sharing.deliver(study=f"study-{n}") for n in range(40)}

        before = places()
        sharing.fail("b")
        after = places()
        assert {n for n in before if before[n] != after[n]} == {
            n for n in before if before[n] == "b: 0000H"
        }


class TestTheConfiguration:
    @pytest.mark.parametrize(
        ("members", "path", "words"),
        [
            (["a", "nobody"], "destinations[1].members[1]", "no destination 'nobody'"),
            (["pacs"], "destinations[1].members[0]", "is a group itself"),
            (["a", "a"], "destinations[1].members[1]", "is there twice"),
            ([], "destinations[1].members", "must not be empty"),
        ],
    )
    def test_is_told_what_is_wrong(
        self, tmp_path: Path, members: list[str], path: str, words: str
    ) -> None:
        system = System(tmp_path / "home")
        with pytest.raises(InvalidConfigurationError) as caught:
            system.ports.configuration.apply(
                {
                    "destinations": [
                        {"name": "a", "type": "filesystem", "path": "a"},
                        {"name": "pacs", "type": "group", "members": members},
                    ],
                    "settings": {"default_route": ["a"]},
                },
                by="test",
            )
        assert [(f.path, words in f.message) for f in caught.value.faults] == [(path, True)]


def test_an_instance_goes_through_the_system_to_the_member_that_is_there(tmp_path: Path) -> None:
    system = System(tmp_path / "home")
    system.ports.configuration.apply(
        {
            "destinations": [
                {
                    "name": "away",
                    "type": "dimse",
                    "host": "127.0.0.1",
                    "port": 9,
                    "ae_title": "AWAY",
                    "timeout_s": 2,
                },
                {"name": "folder", "type": "filesystem", "path": "folder"},
                {"name": "pacs", "type": "group", "members": ["away", "folder"]},
            ],
            "settings": {"default_route": ["pacs"], "min_free_bytes": 0},
        },
        by="test",
    )
    system.clock.advance(1)
    receipt = system.receive()
    system.work()
    assert system.state(receipt) == "routed"
    (file,) = system.delivered()
    assert file.is_relative_to(tmp_path / "home/storage/folder")
    with pytest.raises(DestinationUnavailableError), system.ports.inventory("pacs"):
        pass
    with system.ports.inventory("folder") as inventory:
        assert inventory.instances(receipt.study_instance_uid) == {receipt.sop_instance_uid}
