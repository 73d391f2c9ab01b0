"""Standard terms in the flow: rules that ask, rules that route by the answer, one for a Series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import UnknownVocabularyError
from shared.messages import InstanceAccepted, StandardizationRequested, Topic, decode, encode
from shared.pipeline import again, standardize
from shared.pipeline.explaining import explain_instance
from shared.standardize.embedded import MODEL
from tests.data import build
from tests.embedded_system import DAY
from tests.embedded_system import System as EmbeddedSystem
from tests.unit.operating import System, running_system
from tests.unit.standardize.site import ROUTES, STANDARDIZER, configure, delivered, image, send


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


class TestTheStage:
    def test_routes_on_the_standard_term(self, system: System) -> None:
        configure(system)
        (receipt,) = send(system, image())
        assert delivered(system, receipt).BodyPartExamined == "TSPINE"
        assert system.instance(receipt)["matched_rules"] == ["routes/terms", "routes/spine"]

    def test_says_what_it_changed_in_the_instance(self, system: System) -> None:
        configure(system)
        (receipt,) = send(system, image())
        (item,) = delivered(system, receipt).OriginalAttributesSequence
        assert item.ModifiedAttributesSequence[0].BodyPartExamined == "BWS"

    def test_records_who_proposed_it_and_why(self, system: System) -> None:
        configure(system)
        (receipt,) = send(system, image())
        (told,) = system.instance(receipt)["standardized"]
        assert (told["value"], told["provider"], told["model"]) == (
            "TSPINE",
            "embedded",
            MODEL,
        )
        assert told["evidence"]
        assert told["edition"]
        (entry,) = [one for one in system.audit() if one["what"] == "standardize.applied"]
        assert (entry["after"], entry["provider"]) == ("TSPINE", "embedded")
        assert entry["model"] == MODEL
        assert entry["evidence"]
        assert "Miller" not in str(entry)

    def test_leaves_alone_what_no_rule_wants_standardised(self, system: System) -> None:
        configure(system)
        system.receive(image(Modality="SR", BodyPartExamined="BWS"))
        for _ in range(5):
            for message in system.bus.lease([Topic.STANDARDIZATION_REQUESTED], limit=9, lease_s=1):
                raise AssertionError(message)
            system.step()
        assert len(system.peers["pacs"].stored) == 1

    def test_gives_all_instances_of_a_series_one_value(self, system: System) -> None:
        """Some lack the Attribute or have it otherwise: they are of one body part all the same."""
        configure(system)
        files = [image(1), image(2, BodyPartExamined=""), image(3, BodyPartExamined="CHEST")]
        receipts = send(system, *files)
        values = {delivered(system, one).BodyPartExamined for one in receipts}
        assert values == {"TSPINE"}

    def test_decides_once_for_a_series(self, system: System) -> None:
        configure(system)
        send(system, *(image(n) for n in range(5)))
        assert system.ports.documents.count("standardization-series") == 1
        system.ports.standardizers.counts.write()
        (key,) = [
            one.key for one in system.ports.documents.query("standardization-series").documents
        ]
        assert system.ports.standardizers.counts.hits(key) == 4

    def test_a_message_that_comes_twice_changes_nothing(self, system: System) -> None:
        configure(system)
        receipt = system.receive(image())
        for _ in range(6):
            system.step(again=True)
        system.pump()
        assert delivered(system, receipt).BodyPartExamined == "TSPINE"
        assert len(system.instance(receipt)["standardized"]) == 1
        assert [one["what"] for one in system.audit()].count("standardize.applied") == 1

    def test_views_of_one_series_may_differ(self, system: System) -> None:
        """View Position is of the image: a series of mammograms has CC and MLO."""
        configure(system, {"attributes": ["ViewPosition"]})
        receipts = send(
            system,
            image(1, Modality="MG", ViewPosition="cranio-caudal", SeriesDescription=""),
            image(2, Modality="MG", ViewPosition="mediolateral oblique", SeriesDescription=""),
        )
        values = [delivered(system, one, "pacs").ViewPosition for one in receipts]
        assert values == ["CC", "MLO"]

    def test_fills_the_coded_region_when_asked(self, system: System) -> None:
        configure(system, {"fill_anatomic_region": True})
        (receipt,) = send(system, image())
        (region,) = delivered(system, receipt).AnatomicRegionSequence
        assert (region.CodingSchemeDesignator, region.CodeValue) == ("SCT", "122495006")

    def test_writes_to_another_attribute_when_asked(self, system: System) -> None:
        configure(system, {"write_to": {"BodyPartExamined": "ImageComments"}})
        (receipt,) = send(system, image())
        found = delivered(system, receipt, "pacs")
        assert (found.BodyPartExamined, found.ImageComments) == ("BWS", "TSPINE")

    def test_only_proposes_when_asked(self, system: System) -> None:
        configure(system, {"mode": "propose"})
        (receipt,) = send(system, image())
        assert delivered(system, receipt, "pacs").BodyPartExamined == "BWS"
        (told,) = system.instance(receipt)["standardized"]
        assert (told["state"], told["value"]) == ("proposed", None)

    @pytest.mark.parametrize(
        ("policy", "state"), [({}, "routed"), ({"when_unsure": "hold"}, "held")]
    )
    def test_policy_says_what_becomes_of_what_nobody_knows(
        self, system: System, policy: dict[str, Any], state: str
    ) -> None:
        configure(system, policy)
        (receipt,) = send(system, image(BodyPartExamined="XQZ", SeriesDescription="ABC"))
        assert system.instance(receipt)["state"] == state

    def test_for_one_destination_alone_the_others_get_it_as_it_came(self, system: System) -> None:
        rule = {
            "name": "both",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
            "storage_backends": [
                "pacs",
                {
                    "name": "spare",
                    "actions": [{"type": "standardize", "standardizer": "body-parts"}],
                },
            ],
        }
        configure(system, ruleset={"name": "routes", "rules": [rule]})
        (receipt,) = send(system, image())
        assert delivered(system, receipt, "pacs").BodyPartExamined == "BWS"
        assert delivered(system, receipt, "spare").BodyPartExamined == "TSPINE"

    def test_sees_what_rules_changed_before(self, system: System) -> None:
        rules = [
            {
                "name": "first",
                "conditions": [{"type": "tag_exists", "tag": "Modality"}],
                "actions": [
                    {"type": "set", "tag": "BodyPartExamined", "value": "KNIE"},
                    {"type": "set", "tag": "SeriesDescription", "value": ""},
                    {"type": "standardize", "standardizer": "body-parts"},
                ],
                "storage_backends": ["spare"],
            }
        ]
        configure(system, ruleset={"name": "routes", "rules": rules})
        (receipt,) = send(system, image())
        found = delivered(system, receipt)
        assert found.BodyPartExamined == "KNEE"
        (item,) = found.OriginalAttributesSequence
        assert item.ModifiedAttributesSequence[0].BodyPartExamined == "BWS"

    def test_two_standardizers_may_follow_each_other(self, system: System) -> None:
        second = {"name": "sides", "attributes": ["Laterality"]}
        actions = [{"type": "standardize", "standardizer": n} for n in ("body-parts", "sides")]
        rule = {**ROUTES["rules"][0], "actions": actions, "storage_backends": ["spare"]}
        configure(
            system,
            ruleset={"name": "routes", "rules": [rule]},
            standardizers=[STANDARDIZER, second],
        )
        (receipt,) = send(system, image(BodyPartExamined="Kolano", SeriesDescription="kolano lewe"))
        found = delivered(system, receipt)
        assert (found.BodyPartExamined, found.Laterality) == ("KNEE", "L")

    def test_a_standardizer_that_is_switched_off_changes_nothing(self, system: System) -> None:
        configure(system, {"enabled": False})
        (receipt,) = send(system, image())
        assert delivered(system, receipt, "pacs").BodyPartExamined == "BWS"

    def test_is_explained_with_the_answer_it_had(self, system: System) -> None:
        configure(system)
        (receipt,) = send(system, image())
        told = explain_instance(receipt.receipt_id, system.ports, None, by="test")
        assert [one["matched"] for one in told["rules"]] == [True, True]

    def test_the_file_may_be_gone_when_the_message_comes_again(self, system: System) -> None:
        configure(system)
        (receipt,) = send(system, image())
        system.ports.objects.delete(receipt.file.object_name)
        standardize.run(
            StandardizationRequested(InstanceAccepted(receipt), "body-parts"), system.ports
        )


class TestTheMessage:
    def test_survives_the_wire(self, system: System) -> None:
        configure(system)
        receipt = system.receive(image())
        message = StandardizationRequested(InstanceAccepted(receipt, ("w",), 2, True), "s")
        assert decode(encode(message), StandardizationRequested) == message

    def test_an_older_one_has_no_answers(self, system: System) -> None:
        """A rollout has messages of both versions on their way."""
        configure(system)
        receipt = system.receive(image())
        data = encode(InstanceAccepted(receipt)).replace(b',"standardized":[]', b"")
        assert decode(data, InstanceAccepted).standardized == ()


def test_a_term_that_the_site_took_back_is_not_written(system: System) -> None:
    """Though an equal question was answered with it before, under the same edition."""
    entity = {"vocabularies": {"BodyPartExamined": "own"}}
    for number, csv in enumerate(("term,synonyms\nKNEE L,knie\n", "term,synonyms\nKNEE X,knie\n")):
        configure(system, entity, vocabularies=[{"name": "own", "csv": csv}])
        system.ports.configuration.export()  # looks at once
        (receipt,) = send(system, image(series=f"s{number}", BodyPartExamined="Knie"))
        found = delivered(system, receipt, "pacs").BodyPartExamined
        assert found == ("KNEE L", "KNEE X")[number]


def test_a_site_may_name_its_own_procedures(system: System) -> None:
    configure(
        system,
        {"attributes": ["StudyDescription"], "vocabularies": {"StudyDescription": "procedures"}},
        vocabularies=[
            {
                "name": "procedures",
                "csv": "term,synonyms\nMR KNEE LEFT,mr knee l|knie links mr\n",
            }
        ],
    )
    (receipt,) = send(system, image(StudyDescription="Knie links MR"))
    assert delivered(system, receipt, "pacs").StudyDescription == "MR KNEE LEFT"
    assert build.uid("series") == receipt.series_instance_uid


def test_a_file_that_waits_for_a_standardizer_is_not_cleaned_up(tmp_path: Path) -> None:
    """Nothing but the message knows of it yet, and it may wait long."""
    system = EmbeddedSystem(tmp_path / "home")
    ruleset = {**ROUTES, "rules": ROUTES["rules"][:1]}
    system.ports.configuration.apply(
        {"standardizers": [STANDARDIZER], "rulesets": [ruleset]}, by="test"
    )
    system.clock.advance(1)
    receipt = system.receive()
    system.work(Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)
    for _ in range(3):
        system.later(10 * DAY)
    assert system.has(receipt)
    system.work()
    assert system.state(receipt) == "routed"


@pytest.mark.parametrize("retry", ["decided_anew", "elsewhere", "same_again"])
def test_what_failed_in_the_stage_can_be_retried(
    system: System, monkeypatch: pytest.MonkeyPatch, retry: str
) -> None:
    configure(system)

    def fail(*_: Any) -> None:
        raise UnknownVocabularyError("BodyPartExamined")

    with monkeypatch.context() as broken:
        broken.setattr(system.ports.standardizers, "answer", fail)
        (receipt,) = send(system, image())
    (entry,) = system.entries()
    assert (entry["stage"], entry["code"]) == ("standardize_attributes", "unknown-vocabulary")
    documents = system.ports.documents
    message = {
        "decided_anew": lambda: again.decided_anew(entry, documents),
        "elsewhere": lambda: again.elsewhere(entry, "spare", documents),
        "same_again": lambda: again.same_again(entry, documents),
    }[retry]()
    system.bus.publish([message])
    system.pump()
    found = delivered(system, receipt, "spare")
    assert found.BodyPartExamined == ("BWS" if retry == "elsewhere" else "TSPINE")
