"""A ruleset in shadow mode tells what it would change, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidConfigurationError, StorageUnavailableError
from shared.pipeline import dry_run
from shared.pipeline.shadow import ShadowLog
from shared.rules.examples import STANDARD_TIME
from tests.unit.rules.cases import facts
from tests.unit.rules.whole_system import WholeSystem, whole_system

ABOUT = facts(received_at=STANDARD_TIME)
LIVE: dict[str, Any] = {
    "name": "main",
    "rules": [
        {"name": "ct", "conditions": [{"Modality": "CT"}], "destinations": ["a"]},
        {"name": "rest", "destinations": ["b"]},
    ],
}
CANDIDATE: dict[str, Any] = {
    "name": "next",
    "mode": "shadow",
    "replaces": "main",
    "rules": [
        {
            "name": "ct",
            "conditions": [{"Modality": "CT"}, {"PatientID": "7"}],
            "actions": [{"type": "upper", "tag": "PatientName"}],
            "destinations": ["a", "b"],
        },
        {"name": "rest", "destinations": ["b"]},
    ],
}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeSystem]:
    with whole_system(LIVE, tmp_path, monkeypatch) as system:
        system.ports.configuration.create("rulesets", CANDIDATE, by="test")
        system.clock.advance(1)
        yield system


def report(system: WholeSystem) -> dict[str, Any]:
    system.ports.shadows.write()
    (shadow,) = system.ports.rules.shadows()
    return system.ports.shadows.report(shadow)


def test_it_counts_by_rule_and_names_what_differs(system: WholeSystem) -> None:
    system.send({"Modality": "CT", "PatientID": "7", "PatientName": "roe^ann"}, ABOUT)
    system.send({"Modality": "CT", "PatientID": "8"}, ABOUT)
    system.send({"Modality": "MR"}, ABOUT)
    found = report(system)
    assert (found["instances"], found["different"], found["errors"]) == (3, 2, 0)
    assert found["rules"] == {
        "main/ct": {"live": 2, "candidate": 1},
        "main/rest": {"live": 1, "candidate": 2},
    }
    told = {one["receipt_id"]: one["differences"] for one in found["samples"]}
    assert told[system.receipts[0].receipt_id] == [
        "destinations: + b",
        "changes: + PatientName",
        "changes for a: + PatientName",
    ]
    assert "roe" not in str(found).lower()


def test_it_touches_no_instance(system: WholeSystem) -> None:
    system.send({"Modality": "CT", "PatientID": "7", "PatientName": "roe^ann"}, ABOUT)
    assert system.destinations() == ["a"]
    assert b"roe^ann" in system.delivered("a")
    assert system.instance()["matched_rules"] == ["main/ct"]
    assert system.ports.documents.count("exceptions") == 0


def test_what_goes_wrong_in_it_is_its_own_business(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(dry_run, "differences", broken)
    system.send({"Modality": "CT"}, ABOUT)
    assert system.destinations() == ["a"]


def test_documents_that_cannot_be_read_for_now_are_no_fault_of_a_shadow(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There may be no shadow at all: a warning of one would have people look for it."""

    def unavailable() -> Any:
        raise StorageUnavailableError("locked")

    monkeypatch.setattr(system.ports.rules, "shadows", unavailable)
    system.send({"Modality": "CT"}, ABOUT)
    assert system.destinations() == ["a"]
    assert "shadow" not in caplog.text


def test_another_edition_of_it_counts_from_the_beginning(system: WholeSystem) -> None:
    system.send({"Modality": "MR"}, ABOUT)
    assert report(system)["instances"] == 1
    changed = {**CANDIDATE, "rules": CANDIDATE["rules"][:1]}
    system.ports.configuration.replace("rulesets", "next", changed, by="test")
    system.clock.advance(1)
    assert report(system)["instances"] == 0
    system.send({"Modality": "MR"}, ABOUT)
    assert report(system)["different"] == 1


def test_processes_count_for_themselves_and_the_report_adds_up(system: WholeSystem) -> None:
    (shadow,) = system.ports.rules.shadows()
    system.send({"Modality": "MR"}, ABOUT)
    other = ShadowLog(system.ports.documents, system.clock, write_after_s=3600)
    for _ in range(4):
        other.count(shadow, system.receipts[0], {}, {"verdict": "hold"})
    other.write()
    found = report(system)
    assert (found["instances"], found["different"]) == (5, 4)
    assert system.ports.documents.count("shadow-reports") == 2


def test_counts_wait_while_the_documents_cannot_be_written(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shadow,) = system.ports.rules.shadows()
    system.send({"Modality": "MR"}, ABOUT)
    log = ShadowLog(system.ports.documents, system.clock, write_after_s=3600)
    log.count(shadow, system.receipts[0], {}, {})

    def locked(*_: Any) -> Any:
        raise StorageUnavailableError("locked")

    with monkeypatch.context() as patched:
        patched.setattr(system.ports.documents, "put", locked)
        with pytest.raises(StorageUnavailableError):
            log.write()
    log.write()
    assert report(system)["instances"] == 2


def test_only_a_shadow_replaces_another_ruleset(system: WholeSystem) -> None:
    with pytest.raises(InvalidConfigurationError, match="mode: shadow"):
        system.ports.configuration.create(
            "rulesets", {"name": "x", "replaces": "main", "rules": []}, by="test"
        )


def test_it_stands_in_the_place_of_one_that_there_is(system: WholeSystem) -> None:
    """A misspelt name would make it one more ruleset, and its report tell of other differences."""
    configuration = system.ports.configuration
    for wrong in ("mian", "other"):
        with pytest.raises(InvalidConfigurationError) as caught:
            configuration.create(
                "rulesets", {**CANDIDATE, "name": "other", "replaces": wrong}, by="test"
            )
        assert [fault.path for fault in caught.value.faults] == ["replaces"]
    (used,) = configuration.references("rulesets", "main")
    assert "next" in str(used)


class TestADryRunOverPastTraffic:
    def test_tells_which_instances_would_go_another_way(self, system: WholeSystem) -> None:
        for modality in ("CT", "MR", "CT"):
            system.send({"Modality": modality, "PatientID": "7"}, ABOUT)
        ports = system.ports
        (_, candidate) = ports.rules.read(ports.configuration.get())
        programs = dry_run.programs(ports, candidate)
        found = dry_run.report(dry_run.past_trials(ports, 10), *programs)
        assert (found["instances"], found["different"], found["unreadable"]) == (3, 2, 0)
        assert "destinations: + b" in found["results"][0]["differences"]
        assert found["results"][2]["differences"] == []
        assert dry_run.report(dry_run.past_trials(ports, 2), *programs)["instances"] == 2

    def test_goes_on_without_the_files_that_are_gone(self, system: WholeSystem) -> None:
        for modality in ("CT", "MR"):
            system.send({"Modality": modality}, ABOUT)
        ports = system.ports
        ports.objects.delete(system.receipts[0].file.object_name)
        found = dry_run.report(dry_run.past_trials(ports, 10), *dry_run.programs(ports, None))
        assert (found["instances"], found["unreadable"]) == (1, 1)
