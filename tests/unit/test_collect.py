"""Study and series rules through the whole embedded system, without processes or time passing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pydicom
import pytest
import yaml
from msgspec.structs import replace

from functions.complete_studies import main as timer
from shared import bootstrap, crash_points
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.config.history import ConfigurationHistory
from shared.environment import Environment
from shared.errors import CrosswalkUnavailableError, DocumentMissingError
from shared.messages import DeliveryRequested, InstanceAccepted, Receipt, Topic, decode, encode
from shared.pipeline import again, collect, give_up, rules, studies
from shared.pipeline.collect import Collector
from shared.pipeline.explaining import explain_instance
from shared.pipeline.instance_records import receipt_of
from shared.pipeline.ports import Ports
from shared.pipeline.push import PushRequest, PushResponse
from shared.ports import Document, Outgoing
from shared.rules.studies import StudyRule
from tests.data import build
from tests.fakes import FakeClock
from tests.unit.test_pipeline import pump, receive

ROOT = Path(__file__).resolve().parents[2]
STUDY = build.uid("study")
FOLDERS = ("primary-storage", "target", "target_2", "processing", "sample")

SERIES_DESCRIPTION, STUDY_DESCRIPTION = 0x0008103E, 0x00081030
RELATED_INSTANCES = 0x00201208  # Number of Study Related Instances


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ports(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    """The embedded system below tmp_path on a fake clock, as the entry points find it."""
    environment = Environment.read({"AXIOM_HOME": str(tmp_path)})
    ports = bootstrap.embedded(environment, clock)
    monkeypatch.setattr(bootstrap, "from_environment", lambda: ports)
    timer._collector.cache_clear()
    ports.configuration.apply(
        {
            "destinations": [
                {"name": name, "type": "filesystem", "path": name} for name in FOLDERS
            ],
            "settings": {"default_route": ["primary-storage"], "min_free_bytes": 0},
        },
        by="test",
    )
    yield ports
    ports.destinations.close()


def configure(ports: Ports, *rulesets: Mapping[str, Any]) -> None:
    ports.configuration.apply({"rulesets": list(rulesets)}, by="test")
    # What each process knows of the configuration may be half a second old.
    advance(ports, 1)


def cookbook(name: str) -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load((ROOT / "docs/rules" / name).read_text())
    return document


def study_rule(completion: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    rule = {
        "name": "study",
        "level": "study",
        "completion": completion,
        "destinations": ["target"],
        **fields,
    }
    return {"name": "s", "rules": [rule]}


def two_rules_that_never_hold() -> dict[str, Any]:
    """For a Study after 10 s, and for a Series after 20 s."""
    never = [{"Modality": "US"}]
    document = study_rule({"quiet_period_s": 10}, name="one", conditions=never)
    other = study_rule({"quiet_period_s": 20}, name="two", level="series", conditions=never)
    document["rules"] += other["rules"]
    return document


def advance(ports: Ports, seconds: float) -> None:
    cast(FakeClock, ports.clock).advance(seconds)


def arrive(
    ports: Ports,
    instance: str,
    *,
    series: str = "1",
    study: str = "study",
    series_description: str = "",
    study_description: str = "",
    related_instances: str = "",
) -> Receipt:
    """One Instance on its way to the rules; `pump` takes it there."""
    changes = {
        SERIES_DESCRIPTION: build.element(SERIES_DESCRIPTION, "LO", series_description),
        STUDY_DESCRIPTION: build.element(STUDY_DESCRIPTION, "LO", study_description),
        RELATED_INSTANCES: build.element(RELATED_INSTANCES, "IS", related_instances),
    }
    return receive(
        ports,
        build.ct(4, 4, instance=instance, series=series, study=study, changes=changes),
    )


def tick(ports: Ports) -> None:
    """The timer's call, and what follows from it."""
    answer: PushResponse = cast(Any, timer.complete_studies)(PushRequest(b"", {}))
    assert answer[1] == 204
    pump(ports)


def tick_after(ports: Ports, seconds: float) -> None:
    advance(ports, seconds)
    tick(ports)


def sent(tmp_path: Path) -> dict[str, list[str]]:
    """The SOP Instance UIDs in each folder that has any."""
    found = {
        folder: sorted(path.stem for path in (tmp_path / "storage" / folder).rglob("*.dcm"))
        for folder in FOLDERS
    }
    return {folder: uids for folder, uids in found.items() if uids}


def uids(*instances: str) -> list[str]:
    return sorted(map(build.uid, instances))


def instance(ports: Ports, receipt: Receipt) -> Mapping[str, Any]:
    found = ports.documents.get("instances", receipt.receipt_id)
    assert found is not None
    return found.data


def order(ports: Ports, receipt: Receipt, destination: str) -> None:
    """A person has the Instance delivered there, as a retry of an entry does."""
    known = receipt_of(instance(ports, receipt))
    ordered = again.delivery(known, destination, (), ports.documents)
    ports.bus.publish([ordered])
    give_up.planned(decode(ordered.data, DeliveryRequested), ports.documents)
    pump(ports)


def study(ports: Ports, uid: str = STUDY) -> Mapping[str, Any]:
    (found,) = studies.of_study(ports.documents, uid)
    return found.data


def requested(ports: Ports) -> Counter[tuple[str, str]]:
    """How often each Delivery is asked for on the queue: receipt and destination."""
    assert isinstance(ports.bus, SqliteMessageBus)
    found: Counter[tuple[str, str]] = Counter()
    for leased in ports.bus.lease([Topic.DELIVERY_REQUESTED], limit=10_000, lease_s=60):
        message = json.loads(leased.data)
        found[message["receipt"]["receipt_id"], message["destination"]] += 1
    return found


class TestTheCookbook:
    def test_r04_sends_a_series_at_once_and_the_study_when_it_is_complete(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, cookbook("R04-study-and-series.yaml"))
        first = arrive(ports, "a", series="1", series_description="a", study_description="foo")
        second = arrive(ports, "b", series="2", series_description="foo", study_description="foo")
        pump(ports)
        assert sent(tmp_path) == {"target": uids("b")}
        assert instance(ports, first)["state"] == "collecting"
        assert instance(ports, second)["state"] == "routed"
        tick_after(ports, 59)
        assert sent(tmp_path) == {"target": uids("b")}
        tick_after(ports, 1)
        assert sent(tmp_path) == {"target": uids("b"), "target_2": uids("a", "b")}
        assert instance(ports, first)["state"] == "routed"
        assert instance(ports, second)["matched_rules"] == [
            "R04-study-and-series/one-series",
            "R04-study-and-series/whole-study",
        ]
        assert study(ports)["state"] == "complete"

    def test_r04_leaves_another_study_to_the_default_route(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """Until then it waits: nobody can know what the study's last Instance says."""
        configure(ports, cookbook("R04-study-and-series.yaml"))
        receipt = arrive(ports, "a", study_description="bar")
        pump(ports)
        tick_after(ports, 60)
        assert sent(tmp_path) == {"primary-storage": uids("a")}
        assert instance(ports, receipt)["state"] == "routed"
        assert study(ports)["matched"] is False

    def test_r06_processes_the_study_once_both_series_are_there(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, cookbook("R06-expected-series.yaml"))
        arrive(ports, "a", series="1", series_description="Axial T2 fs")
        pump(ports)
        tick_after(ports, 600)
        assert sent(tmp_path) == {}
        arrive(ports, "b", series="2", series_description="Sag T1 TSE")
        pump(ports)
        tick(ports)
        assert sent(tmp_path) == {"processing": uids("a", "b")}

    def test_r06_discards_the_study_at_the_time_out(self, ports: Ports, tmp_path: Path) -> None:
        configure(ports, cookbook("R06-expected-series.yaml"))
        receipt = arrive(ports, "a", series="1", series_description="Axial T2 fs")
        pump(ports)
        tick_after(ports, 3599)
        assert instance(ports, receipt)["state"] == "collecting"
        tick_after(ports, 1)
        assert sent(tmp_path) == {}
        assert instance(ports, receipt)["state"] == "discarded"
        assert instance(ports, receipt)["reason"] == "not complete in time"
        assert (study(ports)["state"], study(ports)["verdict"]) == ("timed_out", "discard")

    def test_r16_sends_the_study_when_it_has_gone_quiet(self, ports: Ports, tmp_path: Path) -> None:
        configure(ports, cookbook("R16-quiet-study.yaml"))
        arrive(ports, "a", series="1")
        pump(ports)
        tick_after(ports, 100)
        arrive(ports, "b", series="2")
        pump(ports)
        tick_after(ports, 119)
        assert sent(tmp_path) == {}
        tick_after(ports, 1)
        assert sent(tmp_path) == {"sample": uids("a", "b")}


class TestExplaining:
    @pytest.fixture
    def explained(self, ports: Ports) -> Callable[[Receipt], dict[str, Any]]:
        """What the account of the rule `s/study` says about an Instance."""

        def explained(receipt: Receipt) -> dict[str, Any]:
            version = instance(ports, receipt)["configuration_version"]
            history = ConfigurationHistory(ports.objects, ports.documents, ports.configuration)
            decided_by = history.configuration(version)
            told = explain_instance(receipt.receipt_id, ports, decided_by, by="test")
            (account,) = told["rules"]
            return dict(account)

        return explained

    def test_tells_what_was_decided_about_the_study_and_on_which_values(
        self, ports: Ports, explained: Callable[[Receipt], dict[str, Any]]
    ) -> None:
        wanted = [{"StudyDescription": "brain"}, {"instance_count": {">=": 2}}]
        configure(ports, study_rule({"quiet_period_s": 10}, conditions=wanted))
        brains = [arrive(ports, name, study_description="brain") for name in ("a", "b")]
        chest = arrive(ports, "c", study="other", study_description="chest")
        pump(ports)
        assert explained(brains[0])["reason"] == "waits for the study to be complete"
        tick_after(ports, 10)
        advance(ports, 1)
        late = arrive(ports, "late", study_description="brain")
        pump(ports)
        tick(ports)
        account = explained(brains[0])
        assert (account["matched"], account["reason"]) == (True, "matched")
        assert account["conditions"][1]["seen"] == {"instance_count": [2]}
        assert explained(late)["reason"] == "matched, late"
        account = explained(chest)
        assert account["matched"] is False
        assert account["reason"] == 'does not hold: any instance: StudyDescription == "brain"'
        assert account["conditions"][0]["seen"] == {"StudyDescription": ["chest"]}

    def test_tells_what_was_not_complete_in_time(
        self, ports: Ports, explained: Callable[[Receipt], dict[str, Any]]
    ) -> None:
        completion = {"expected_instances": 2, "timeout_s": 10, "on_timeout": "hold"}
        configure(ports, study_rule(completion))
        receipt = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        account = explained(receipt)
        assert (account["matched"], account["reason"]) == (True, "hold: not complete in time")
        for found in ports.documents.query("studies").documents:
            ports.documents.delete("studies", found.key)  # as cleaning up does one day
        assert explained(receipt)["reason"] == "hold: not complete in time"


class TestAStudy:
    @pytest.mark.parametrize(
        ("action", "state", "folders"),
        [
            ("process", "routed", {"target": uids("a")}),
            ("discard", "discarded", {}),
            ("hold", "held", {}),
            ("wait", "collecting", {}),
        ],
    )
    def test_that_is_not_complete_in_time_has_the_action_that_the_rule_names(
        self, ports: Ports, tmp_path: Path, action: str, state: str, folders: dict[str, list[str]]
    ) -> None:
        completion = {"expected_instances": 2, "timeout_s": 100, "on_timeout": action}
        configure(ports, study_rule(completion))
        receipt = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 100)
        tick_after(ports, 100)
        assert instance(ports, receipt)["state"] == state
        assert sent(tmp_path) == folders

    def test_is_complete_when_as_many_came_as_its_header_says(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """One that was sent twice is one: a modality that tries again must not end the wait."""
        configure(ports, study_rule({"expected_instances": "NumberOfStudyRelatedInstances"}))
        for name in ("a", "a"):
            arrive(ports, name, related_instances="2")
        pump(ports)
        tick(ports)
        assert sent(tmp_path) == {}
        arrive(ports, "b", related_instances="2")
        pump(ports)
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a", "b")}

    def test_leaves_with_the_rules_changes_and_the_original_attributes(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        action = {"type": "set", "tag": "StudyDescription", "value": "WHOLE"}
        configure(ports, study_rule({"expected_instances": 1}, actions=[action]))
        receipt = arrive(ports, "a", study_description="foo")
        pump(ports)
        tick(ports)
        (path,) = (tmp_path / "storage" / "target").rglob("*.dcm")
        left = pydicom.dcmread(path)
        assert left.StudyDescription == "WHOLE"
        (item,) = left.OriginalAttributesSequence
        assert item.ModifiedAttributesSequence[0].StudyDescription == "foo"
        assert instance(ports, receipt)["deliveries"][0]["changes"][0]["new"] == ["WHOLE"]

    def test_that_several_rules_want_waits_for_all_of_them_before_the_default_route(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, two_rules_that_never_hold())
        receipt = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "collecting"
        assert instance(ports, receipt)["collecting_for"] == ["s/two"]
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "routed"
        assert sent(tmp_path) == {"primary-storage": uids("a")}

    def test_goes_where_no_rule_sends_it_as_well_as_where_a_person_did_meanwhile(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, two_rules_that_never_hold())
        receipt = arrive(ports, "a")
        pump(ports)
        order(ports, receipt, "target_2")
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "collecting"
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "routed"
        assert sent(tmp_path) == {"primary-storage": uids("a"), "target_2": uids("a")}

    def test_is_not_held_where_a_person_has_sent_it_and_no_rule_does(self, ports: Ports) -> None:
        ports.configuration.apply({"settings": {"min_free_bytes": 0}}, by="test")
        configure(ports, study_rule({"quiet_period_s": 10}, conditions=[{"Modality": "US"}]))
        receipt = arrive(ports, "a")
        pump(ports)
        order(ports, receipt, "target_2")
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "routed"

    def test_is_held_where_neither_its_rule_nor_a_default_route_takes_it(
        self, ports: Ports
    ) -> None:
        ports.configuration.apply({"settings": {"min_free_bytes": 0}}, by="test")
        configure(ports, study_rule({"quiet_period_s": 10}, conditions=[{"Modality": "US"}]))
        receipt = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "held"

    def test_whose_rule_is_gone_is_let_go(self, ports: Ports, tmp_path: Path) -> None:
        """Nobody else would ever ask for its Instances."""
        configure(ports, study_rule({"quiet_period_s": 10}))
        arrive(ports, "a")
        pump(ports)
        configure(ports)
        tick_after(ports, 10)
        assert sent(tmp_path) == {"primary-storage": uids("a")}
        assert study(ports)["reason"] == "the rule is no longer in force"

    def test_is_judged_by_the_rule_as_it_is_now(self, ports: Ports, tmp_path: Path) -> None:
        configure(ports, study_rule({"expected_series": [{"SeriesDescription": "x"}]}))
        arrive(ports, "a", series_description="y")
        pump(ports)
        tick(ports)
        assert sent(tmp_path) == {}
        configure(ports, study_rule({"expected_series": [{"SeriesDescription": "y"}]}))
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a")}

    def test_goes_once_to_a_destination_that_an_instance_rule_chose_too(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """Two copies of one SOP Instance with different Changes would contradict each other."""
        action = {"type": "set", "tag": "StudyDescription", "value": "BY STUDY"}
        document = study_rule({"quiet_period_s": 10}, actions=[action])
        document["rules"].append({"name": "at-once", "destinations": ["target"]})
        configure(ports, document)
        arrive(ports, "a", study_description="foo")
        pump(ports)
        tick_after(ports, 10)
        (path,) = (tmp_path / "storage" / "target").rglob("*.dcm")
        assert pydicom.dcmread(path).StudyDescription == "foo"
        assert ports.documents.count("exceptions") == 0

    def test_that_a_failing_rule_holds_is_in_the_exception_log(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        action = {"type": "set", "tag": "StudyDate", "value": "{SeriesDescription}"}
        configure(ports, study_rule({"quiet_period_s": 10}, actions=[action]))
        receipts = [
            arrive(ports, "a", series_description="20240101"),
            arrive(ports, "b", series_description="none"),
        ]
        pump(ports)
        tick_after(ports, 10)
        assert [instance(ports, receipt)["state"] for receipt in receipts] == ["held", "held"]
        (entry,) = ports.exceptions.list().documents
        assert (entry.data["code"], entry.data["receipt_id"]) == (
            "rule-failed",
            receipts[1].receipt_id,
        )
        # Once the rule is mended, a person has it go on.
        configure(ports, study_rule({"quiet_period_s": 10}))
        studies.complete(ports.documents, ports.clock, STUDY, by="test")
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a", "b")}

    def test_waits_while_a_crosswalk_does_not_answer(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}))
        receipt = arrive(ports, "a")
        arrive(ports, "b", study="other")
        pump(ports)
        conclude = StudyRule.conclude

        def fails(rule: StudyRule, state: Any, collected: Any) -> Any:
            if collected[0].header.text("StudyInstanceUID") == STUDY:
                raise CrosswalkUnavailableError("map", "gone")
            return conclude(rule, state, collected)

        monkeypatch.setattr(StudyRule, "conclude", fails)
        tick_after(ports, 10)
        assert sent(tmp_path) == {"target": uids("b")}
        assert instance(ports, receipt)["state"] == "collecting"
        monkeypatch.undo()
        monkeypatch.setattr(bootstrap, "from_environment", lambda: ports)
        tick(ports)
        assert instance(ports, receipt)["state"] == "collecting"
        tick_after(ports, 10)
        assert sent(tmp_path) == {"target": uids("a", "b")}

    def test_with_an_instance_whose_file_is_gone_sends_the_others(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}))
        lost = arrive(ports, "a")
        arrive(ports, "b")
        pump(ports)
        ports.objects.delete(lost.file.object_name)
        tick_after(ports, 10)
        assert sent(tmp_path) == {"target": uids("b")}
        assert instance(ports, lost)["state"] == "held"
        (entry,) = ports.exceptions.list().documents
        assert entry.data["code"] == "object-missing"


class TestALateInstance:
    def test_is_delivered_likewise_flagged_and_counted(self, ports: Ports, tmp_path: Path) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}))
        early = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        advance(ports, 1)
        late = [arrive(ports, name) for name in ("b", "c")]
        pump(ports)
        assert instance(ports, late[0])["state"] == "collecting"
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a", "b", "c")}
        flags = [instance(ports, one)["studies"]["s/study"]["late"] for one in (early, *late)]
        assert flags == [False, True, True]
        assert (study(ports)["instances"], study(ports)["late"]) == (3, 2)
        assert study(ports)["state"] == "complete"

    @pytest.mark.parametrize(
        ("rule", "state"),
        [
            ({"conditions": [{"instance_count": {">=": 2}}]}, "routed"),  # by the default route
            ({"actions": [{"type": "discard"}], "destinations": []}, "discarded"),
            ({"actions": [{"type": "hold"}], "destinations": []}, "held"),
        ],
    )
    def test_shares_the_fate_of_its_study(
        self, ports: Ports, tmp_path: Path, rule: dict[str, Any], state: str
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}, **rule))
        receipts = [arrive(ports, "a")]
        pump(ports)
        tick_after(ports, 10)
        advance(ports, 1)
        receipts.append(arrive(ports, "b"))
        pump(ports)
        tick(ports)
        assert [instance(ports, receipt)["state"] for receipt in receipts] == [state, state]
        assert "target" not in sent(tmp_path)

    def test_that_comes_while_the_decision_is_recorded_is_not_forgotten(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the timer has counted, before its decision is seen."""
        configure(ports, study_rule({"quiet_period_s": 10}))
        arrive(ports, "a")
        pump(ports)
        conclude = StudyRule.conclude

        def meanwhile(rule: StudyRule, state: Any, collected: Any) -> Any:
            arrive(ports, "b")
            pump(ports)
            return conclude(rule, state, collected)

        monkeypatch.setattr(StudyRule, "conclude", meanwhile)
        tick_after(ports, 10)
        assert sent(tmp_path) == {"target": uids("a", "b")}

    def test_that_comes_while_the_decision_is_carried_out_is_not_forgotten(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the timer has listed whom to tell, before it is through."""
        configure(ports, study_rule({"quiet_period_s": 10}))
        arrive(ports, "a")
        pump(ports)
        settle = collect._settle

        def meanwhile(*arguments: Any) -> None:
            monkeypatch.setattr(collect, "_settle", settle)
            arrive(ports, "b")
            pump(ports)
            settle(*arguments)

        monkeypatch.setattr(collect, "_settle", meanwhile)
        tick_after(ports, 10)
        tick_after(ports, 1)
        assert sent(tmp_path) == {"target": uids("a", "b")}
        assert study(ports)["instances"] == 2


class TestAPersonsWord:
    def test_completes_a_study(self, ports: Ports, tmp_path: Path) -> None:
        configure(ports, study_rule({"quiet_period_s": 86400}))
        arrive(ports, "a")
        arrive(ports, "b", study="other")
        pump(ports)
        (changed,) = studies.complete(ports.documents, ports.clock, STUDY, by="cli:me")
        assert changed["forced_by"] == "cli:me"
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a")}
        with pytest.raises(studies.StudyDecidedError):
            studies.complete(ports.documents, ports.clock, STUDY, by="cli:me")
        with pytest.raises(DocumentMissingError):
            studies.complete(ports.documents, ports.clock, "1.2.3", by="cli:me")
        with pytest.raises(DocumentMissingError):
            studies.complete(ports.documents, ports.clock, STUDY, by="cli:me", rule="s/other")

    @pytest.mark.parametrize("action", ["hold", "discard"])
    def test_sends_a_study_that_was_not_complete_in_time(
        self, ports: Ports, tmp_path: Path, action: str
    ) -> None:
        completion = {"expected_instances": 9, "timeout_s": 10, "on_timeout": action}
        configure(ports, study_rule(completion))
        arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        advance(ports, 1)
        arrive(ports, "late")
        pump(ports)
        tick(ports)
        assert sent(tmp_path) == {}
        studies.complete(ports.documents, ports.clock, STUDY, by="test")
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a", "late")}
        assert study(ports)["state"] == "complete"

    def test_counts_although_a_timer_is_still_busy_with_the_decision_before(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        completion = {"expected_instances": 9, "timeout_s": 10, "on_timeout": "hold"}
        configure(ports, study_rule(completion))
        receipts = [arrive(ports, name) for name in ("a", "b")]
        pump(ports)
        tell = Collector._tell

        def meanwhile(*arguments: Any) -> Any:
            monkeypatch.setattr(Collector, "_tell", tell)
            asked = tell(*arguments)
            studies.complete(ports.documents, ports.clock, STUDY, by="test")
            Collector(ports).run()
            return asked

        monkeypatch.setattr(Collector, "_tell", meanwhile)
        tick_after(ports, 10)
        assert sent(tmp_path) == {"target": uids("a", "b")}
        for receipt in receipts:
            assert instance(ports, receipt)["studies"]["s/study"]["verdict"] == "route"
        assert (study(ports)["state"], study(ports)["due_at"]) == ("complete", None)
        rounds = {one.data["round"] for one in ports.documents.query("collected").documents}
        assert rounds == {2}

    def test_to_decide_anew_about_an_instance_asks_the_studys_rule_again(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}, actions=[{"type": "hold"}]))
        receipt = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "held"
        rules.release(receipt.receipt_id, ports)
        pump(ports)
        assert instance(ports, receipt)["state"] == "collecting"
        tick_after(ports, 1)
        assert sent(tmp_path) == {"target": uids("a")}

    def test_what_is_released_goes_though_others_of_its_study_stay_held(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}, actions=[{"type": "hold"}]))
        first, second = arrive(ports, "a"), arrive(ports, "b")
        pump(ports)
        tick_after(ports, 10)
        rules.release(first.receipt_id, ports)
        pump(ports)
        tick_after(ports, 1)
        assert sent(tmp_path) == {"target": uids("a")}
        assert instance(ports, second)["state"] == "held"

    def test_what_timed_out_and_is_released_goes(self, ports: Ports, tmp_path: Path) -> None:
        completion = {"expected_instances": 9, "timeout_s": 10, "on_timeout": "hold"}
        configure(ports, study_rule(completion))
        receipt = arrive(ports, "a")
        pump(ports)
        tick_after(ports, 10)
        assert instance(ports, receipt)["state"] == "held"
        rules.release(receipt.receipt_id, ports)
        pump(ports)
        tick_after(ports, 10)
        assert sent(tmp_path) == {"target": uids("a")}

    def test_conditions_are_told_what_has_come_back(self, ports: Ports, tmp_path: Path) -> None:
        mark = {"type": "set", "tag": "StationName", "value": "AXIOM"}
        configure(ports, {"name": "first", "rules": [{"name": "mark", "actions": [mark]}]})
        arrive(ports, "a")
        pump(ports)
        (left,) = (tmp_path / "storage").rglob("*.dcm")
        rule = study_rule({"quiet_period_s": 10}, conditions=[{"type": "returned"}])
        configure(ports, {**rule, "returned_instances": "process"})
        receive(ports, left.read_bytes())
        pump(ports)
        tick_after(ports, 10)
        assert sent(tmp_path)["target"] == uids("a")


class TestWhatGoesWrong:
    def test_the_same_messages_twice_leave_what_once_leaves(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}))
        receipt = arrive(ports, "a")
        pump(ports, times=2)
        again = Outgoing(Topic.INSTANCE_ACCEPTED, encode(InstanceAccepted(receipt)))
        ports.bus.publish([again])
        pump(ports, times=2)
        assert ports.documents.count("collected") == ports.documents.count("studies") == 1
        tick_after(ports, 10)
        tick(ports)
        before = study(ports), instance(ports, receipt)
        ports.bus.publish([again])
        pump(ports, times=2)
        tick_after(ports, 60)
        assert (study(ports), instance(ports, receipt)) == before
        assert sent(tmp_path) == {"target": uids("a")}
        assert ports.documents.count("deliveries") == 1

    @pytest.mark.parametrize("place", ["decision", "publish", "settle"])
    def test_a_timer_that_dies_anywhere_is_followed_by_one_that_goes_on(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        configure(ports, study_rule({"quiet_period_s": 10}))
        receipts = [arrive(ports, name) for name in ("a", "b", "c")]
        pump(ports)
        advance(ports, 10)

        def die(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            if place == "decision":
                patch.setattr(crash_points, "reached", die)
            elif place == "publish":
                patch.setattr(type(ports.bus), "publish", die)
            else:
                patch.setattr(collect, "_settle", die)
            with pytest.raises(Killed):
                Collector(ports).run()
        Collector(ports).run()
        assert all(one["state"] in ("collecting", "routed") for one in _instances(ports))
        advance(ports, collect.CLAIM_S)
        Collector(ports).run()
        asked = requested(ports)
        assert set(asked) == {(receipt.receipt_id, "target") for receipt in receipts}
        # Only a death after the publication, which nobody can know of, has them asked for again.
        assert set(asked.values()) == ({2} if place == "settle" else {1})
        assert study(ports)["due_at"] is None

    def test_the_changes_are_those_of_the_first_decision_however_often_it_is_repeated(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Original Attributes hold the time, so a second run would make other bytes."""
        action = {"type": "set", "tag": "StudyDescription", "value": "WHOLE"}
        configure(ports, study_rule({"quiet_period_s": 10}, actions=[action]))
        receipt = arrive(ports, "a")
        pump(ports)
        advance(ports, 10)

        def die(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(collect, "_settle", die)
            with pytest.raises(Killed):
                Collector(ports).run()
        before = instance(ports, receipt)
        tick_after(ports, collect.CLAIM_S)
        assert instance(ports, receipt) == before
        assert ports.documents.count("exceptions") == 0

    def test_a_process_killed_between_decision_and_publication_loses_and_doubles_nothing(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        _set_to_a_minute_ago(ports)
        configure(ports, study_rule({"quiet_period_s": 86400}))
        receipts = [arrive(ports, name) for name in ("a", "b")]
        pump(ports)
        studies.complete(ports.documents, ports.clock, STUDY, by="test")
        died = _timer_process(tmp_path, crash=crash_points.AFTER_COMPLETION)
        died.wait(60)
        assert died.returncode == -signal.SIGKILL
        assert study(ports)["state"] == "complete"
        assert [instance(ports, receipt)["state"] for receipt in receipts] == ["collecting"] * 2
        advance(ports, 3600)
        Collector(ports).run()
        assert requested(ports) == {(one.receipt_id, "target"): 1 for one in receipts}

    def test_two_timers_at_once_in_two_processes_ask_for_each_delivery_once(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        _set_to_a_minute_ago(ports)
        configure(ports, study_rule({"quiet_period_s": 86400}))
        receipts = [
            arrive(ports, f"{study}-{number}", study=study)
            for study in ("study", "other")
            for number in range(30)
        ]
        pump(ports)
        for study_ in ("study", "other"):
            studies.complete(ports.documents, ports.clock, build.uid(study_), by="test")
        timers = [_timer_process(tmp_path) for _ in range(2)]
        assert [process.wait(120) for process in timers] == [0, 0]
        assert requested(ports) == {(one.receipt_id, "target"): 1 for one in receipts}


class TestAThousandInstances:
    def test_write_a_thousand_documents_and_their_study_a_few_times(
        self, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Firestore takes about one sustained write a second per document."""
        configure(ports, study_rule({"quiet_period_s": 60}))
        writes: Counter[tuple[str, str]] = Counter()
        for name in ("create", "replace", "put"):
            _count_writes(ports, name, writes, monkeypatch)
        header = build.ct(4, 4)
        template = receive(ports, header)
        pump(ports)
        receipts = [template, *(_twin(template, number) for number in range(999))]
        for number, receipt in enumerate(receipts):
            rules.run(InstanceAccepted(receipt), ports)
            if number % 100 == 99:
                advance(ports, 1)
                Collector(ports).run()
        advance(ports, 60)
        Collector(ports).run()
        assert requested(ports).total() == 1000
        of_studies = [count for (where, _), count in writes.items() if where == "studies"]
        assert len(of_studies) == 1
        assert of_studies[0] <= 4
        assert max(writes.values()) <= 4
        assert study(ports)["instances"] == 1000


def _twin(receipt: Receipt, number: int) -> Receipt:
    """Another Instance with the same received file."""
    return replace(
        receipt, receipt_id=f"{receipt.receipt_id}-{number}", sop_instance_uid=f"1.2.{number}"
    )


def _count_writes(
    ports: Ports, name: str, writes: Counter[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = getattr(ports.documents, name)

    def counted(collection: str, key: str, *arguments: Any) -> Document:
        writes[collection, key] += 1
        written: Document = write(collection, key, *arguments)
        return written

    monkeypatch.setattr(ports.documents, name, counted)


def _instances(ports: Ports) -> Sequence[Mapping[str, Any]]:
    return [document.data for document in ports.documents.query("instances").documents]


def _set_to_a_minute_ago(ports: Ports) -> None:
    """Another process has the machine's clock, and what is due here is to be due there."""
    advance(ports, (datetime.now(UTC) - ports.clock.now()).total_seconds() - 60)


def _timer_process(home: Path, *, crash: str = "") -> subprocess.Popen[str]:
    code = (
        "from functions.complete_studies.main import complete_studies as timer\n"
        "from shared.pipeline.push import PushRequest\n"
        "assert timer(PushRequest(b'', {}))[1] == 204\n"
    )
    environment = {**os.environ, "AXIOM_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment[crash_points.VARIABLE] = crash
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, cwd=ROOT)
