"""The rules of the cookbook, each with the tests beside it, through reception, validation, rules,
collector and delivery; and the same rules with the vectors of the systems they come from.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from msgspec.structs import replace

from scp_gateway.dimse_status import answer_for
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.errors import (
    Fault,
    InvalidConfigurationError,
    RefusedByRuleError,
    RulesUnavailableError,
)
from shared.messages import Source
from shared.pipeline import instance_actions
from shared.rules.examples import STANDARD_TIME, Example, Expected, read_example
from shared.rules.reading import Faults
from shared.web.store_response import FailedInstance
from tests.conftest import CORPUS
from tests.data import build
from tests.unit.rules.cases import facts
from tests.unit.rules.whole_system import (
    REFUSED,
    TAKEN,
    WholeSystem,
    changed,
    part10,
    whole_system,
)
from tests.unit.test_pipeline import pump

ABOUT = facts(received_at=STANDARD_TIME)
COOKBOOK = Path(__file__).parents[3] / "docs" / "rules"


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def cookbook(number: str) -> dict[str, Any]:
    (path,) = COOKBOOK.glob(f"{number}-*.yaml")
    return load(path)


# ---- the tests beside the rules --------------------------------------------------------------

EXAMPLES = [
    pytest.param(path, number, id=f"{path.stem}: {test['name']}")
    for path in sorted(COOKBOOK.glob("*.yaml"))
    for number, test in enumerate(load(path)["tests"])
    # What has come back is another thing in a system than to say so: see TestTheLoopGuard.
    if not test.get("facts", {}).get("returned")
]


@pytest.mark.parametrize(("path", "number"), EXAMPLES)
def test_beside_the_rule_holds_in_the_whole_system(
    path: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = load(path)
    written = document["tests"][number]
    faults = Faults()
    example = read_example(written, "test", faults)
    assert not list(faults)
    if example.execution_mode:
        document = {**document, "execution_mode": example.execution_mode, "tests": []}
    with whole_system(document, tmp_path, monkeypatch) as system:
        for one, instance in zip(
            written.get("instances", [written]), example.instances, strict=True
        ):
            attributes = one.get("attributes", {})
            sent = part10(attributes, len(system.receipts))
            answer = system.send_file(sent, instance.facts)
            if instance.expected.refused is not None:
                assert answer == (REFUSED if instance.expected.refused else TAKEN)
            if answer == TAKEN:
                check_instance(system, sent, instance.expected)
        check_studies(system, example)


def check_instance(system: WholeSystem, sent: bytes, expected: Expected) -> None:
    data = system.instance()
    if expected.matched is not None:
        matched = [name.rpartition("/")[2] for name in data["matched_rules"]]
        assert matched == list(expected.matched)
    if expected.destinations is not None:
        assert system.destinations() == list(expected.destinations)
    if expected.verdict is not None:
        assert system.verdict() == expected.verdict
    if expected.failures is not None:
        assert system.failed_rules() == list(expected.failures)
    if expected.high_priority is not None:
        assert data["high_priority"] == expected.high_priority
    own = expected.changes_for or {}
    if expected.changes is not None:
        for destination in set(system.destinations()) - set(own):
            # A copy may have changes of its own, which `changes` does not tell of.
            if not is_changed_alone(system, destination):
                check_changes(sent, system.delivered(destination), expected.changes)
    for destination, changes in own.items():
        check_changes(sent, system.delivered(destination), changes)


def is_changed_alone(system: WholeSystem, destination: str) -> bool:
    (ruleset,) = system.ports.configuration.get().rulesets
    targets = [target for rule in ruleset["rules"] for target in rule.get("destinations", ())]
    return any(isinstance(one, Mapping) and one["name"] == destination for one in targets)


def check_changes(sent: bytes, delivered: bytes, expected: Mapping[str, str | None]) -> None:
    header = Header.parse(delivered, file_size=len(delivered))
    found = changed(sent, delivered)
    for name, text in expected.items():
        assert header.text(name) == text, name
    named = {str(AttributePath.parse(name)) for name in expected}
    named |= {tag_of(header, name) for name in expected}
    assert set(found) <= named


def tag_of(header: Header, name: str) -> str:
    element = header.element(name)
    return "" if element is None else str(AttributePath.of_tag(element.tag))


def check_studies(system: WholeSystem, example: Example) -> None:
    if not example.studies:
        return
    system.wait(example.after_s)
    (study,) = system.ports.documents.query("studies").documents
    (expected,) = example.studies.values()
    states = {"collecting": "waiting", "timed_out": "timed out"}
    state = study.data["state"]
    if expected.state is not None:
        assert states.get(state, state) == expected.state
    if expected.verdict is not None:
        assert study.data["verdict"] == expected.verdict
    if expected.destinations is not None:
        folders = system.home / "storage"
        has = {name: len(list((folders / name).rglob("*.dcm"))) for name in expected.destinations}
        assert has == dict.fromkeys(expected.destinations, len(system.receipts))


# ---- the vectors of the systems that the rules come from -------------------------------------


def vectors() -> list[Any]:
    page = CORPUS / "routing_rules_dev.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return [
        pytest.param(rule, vector, id=f"{rule}-{number}")
        for rule, block in re.findall(r"^### (R\d\d) .*?```json\n(.*?)```", text, re.M | re.S)
        for number, vector in enumerate(json.loads(block))
        if not (isinstance(vector["in"], dict) and vector["in"].get("origin") == "rule")
    ]


# What the vectors call a place, and what our rule does.
NAMES = {"a": "store-a", "DEVICE_B": "device-b"}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside the repository")
@pytest.mark.parametrize(("rule", "vector"), vectors())
def test_of_another_system_gives_what_it_gives_there(
    rule: str, vector: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = cookbook(rule)
    if "mode" in vector:
        mode = {"first": "FIRST_MATCH", "all": "ALL_MATCHES"}[vector["mode"]]
        document = {**document, "execution_mode": mode, "tests": []}
    out = [token for token in vector["out"] if token != "delete"]
    with whole_system(document, tmp_path, monkeypatch) as system:
        sent = vector["in"] if isinstance(vector["in"], list) else [vector["in"]]
        answers = []
        for number, one in enumerate(sent):
            attributes = {name: value for name, value in one.items() if name != "calling_ae"}
            about = facts(calling_ae_title=one.get("calling_ae", "TEST"), received_at=STANDARD_TIME)
            if len(sent) > 1:
                attributes.setdefault("SeriesInstanceUID", f"1.2.{number}")
            answers.append(system.send(attributes, about))
        if "refuse" in out:
            assert answers == [REFUSED]
            return
        if len(sent) > 1 or "after" in vector:
            system.wait(3600 if vector.get("after") == "timeout" else 120)
        assert places(system) == wanted(out, len(sent))
        assert system.failed_rules() == [t[6:] for t in out if t.startswith("error:")]
        if "discard" in out or vector["out"] == ["delete"]:
            assert system.verdict() == "discard"
        for action, name, value in re.findall(r"(set|remove):(\w+)=?([^;]*)", ";".join(out)):
            (place,) = places(system)
            delivered = system.delivered(place)
            text = Header.parse(delivered, file_size=len(delivered)).text(name)
            assert text == (value if action == "set" else None)


def places(system: WholeSystem) -> dict[str, int]:
    """How many Instances each destination has."""
    found: dict[str, int] = {}
    for number in range(len(system.receipts)):
        for name in system.destinations(number):
            found[name] = found.get(name, 0) + 1
    return found


def wanted(out: list[str], sent: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for token in out:
        if token == "process study":
            found["processing"] = sent
        elif token == "store":
            found["store"] = 1
        elif match := re.match(r"(?:send|stow|cstore):(\S+)( study)?", token):
            found[NAMES.get(match[1], match[1])] = sent if match[2] else 1
    return found


# ---- what no example can say -----------------------------------------------------------------

CT = {"Modality": "CT", "PatientID": "7", "PatientName": "a^b"}


class TestTheCookbooksCopyForResearch:
    """What a site copies from there it trusts."""

    def test_holds_nothing_of_who_the_patient_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = {
            "PatientName": "SECRET^NAME",
            "PatientID": "SECRETID",
            "AccessionNumber": "SECRETACC",
            "StudyID": "SECRETSTUDY",
            "ReferringPhysicianName": "SECRET^REFERRING",
            "PerformingPhysicianName": "SECRET^PERFORMING",
            "PhysiciansOfRecord": "SECRET^RECORD",
            "NameOfPhysiciansReadingStudy": "SECRET^READING",
            "OperatorsName": "SECRET^OPERATOR",
            "InstitutionName": "SECRETHOUSE",
            "InstitutionalDepartmentName": "SECRETWARD",
            "StationName": "SECRETSTATION",
            "DeviceSerialNumber": "SECRETSERIAL",
            "IssuerOfPatientID": "SECRETISSUER",
            "PatientAddress": "SECRETSTREET",
            "AdditionalPatientHistory": "SECRETHISTORY",
            "ImageComments": "SECRETCOMMENT",
            "RequestingPhysician": "SECRET^REQUESTING",
            "RequestAttributesSequence": [{"ScheduledProcedureStepID": "SECRETSTEP"}],
            "PatientBirthDate": "19591231",
            "PatientBirthTime": "235959",
            "FrameOfReferenceUID": "1.2.3.959.1",
            "ReferencedImageSequence": [{"ReferencedSOPInstanceUID": "1.2.3.959.2"}],
            "OriginalAttributesSequence": [
                {"ModifiedAttributesSequence": [{"PatientName": "SECRET^EARLIER"}]}
            ],
        }
        document = load(COOKBOOK / "per-destination.yaml")
        with whole_system(document, tmp_path, monkeypatch, original_attributes=False) as system:
            private = build.element(0x7FE10010, "LO", "SECRETBLOCK")
            system.send_file(part10(told) + private, ABOUT)
            research, archive = system.delivered("research"), system.delivered("archive")
        for secret in (b"SECRET", b"19591231", b"235959", b"1.2.3.959."):
            assert secret in archive
            assert secret not in research


class TestReception:
    def test_tells_the_sender_what_the_rule_says_and_records_it_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with whole_system(cookbook("R12"), tmp_path, monkeypatch) as system:
            with system.ports.receiver.begin(Source("dimse", "main")) as staging:
                staging.write(part10(CT))
                with pytest.raises(RefusedByRuleError) as refused:
                    staging.commit()
            assert answer_for(refused.value).status == 0x0124
            assert FailedInstance(refused.value).failure_reason == 0x0124
            pump(system.ports)
            (entry,) = system.ports.exceptions.list().documents
            assert (entry.data["code"], entry.data["category"]) == ("refused-by-rule", "validation")
            assert entry.data["sop_instance_uid"] == build.uid("instance 0")
            assert not list((tmp_path / "objects" / "received").rglob("*.dcm"))

    def test_has_the_sender_come_again_while_its_rules_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rules of an older version may be wrong by now; what they are for is not known then."""
        with whole_system(cookbook("R12"), tmp_path, monkeypatch) as system:
            monkeypatch.setattr(
                "shared.pipeline.rulebook.parse_ruleset", mock_refusal("not what it was")
            )
            with pytest.raises(RulesUnavailableError) as refused:
                system.send({"Modality": "MR"}, ABOUT)
            assert answer_for(refused.value).status == 0xA700


class TestHolding:
    RULESET: dict[str, Any] = {  # noqa: RUF012
        "name": "s",
        "rules": [
            {
                "name": "r",
                "actions": [
                    {"type": "hold", "reason": "a person looks at these"},
                    {"type": "upper", "tag": "PatientName"},
                ],
                "destinations": ["a"],
            }
        ],
    }

    def test_keeps_an_instance_until_a_person_releases_it_to_where_it_was_bound(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with whole_system(self.RULESET, tmp_path, monkeypatch) as system:
            system.send(CT, ABOUT)
            assert system.verdict() == "hold"
            assert system.destinations() == []
            receipt = system.receipts[0].receipt_id
            instance_actions.release(receipt, by="test", ports=system.ports)
            pump(system.ports)
            assert system.destinations() == ["a"]
            assert b"A^B" in system.delivered("a")

    def test_for_a_crosswalk_is_not_ended_by_a_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it could not look up would leave as it came."""
        rule = {
            "name": "r",
            "actions": [
                {
                    "type": "crosswalk",
                    "map": "mrn",
                    "match": {"old": "PatientID"},
                    "set": {"PatientID": "new"},
                    "on_miss": "hold",
                }
            ],
            "destinations": ["a"],
        }
        (tmp_path / "crosswalks").mkdir()
        (tmp_path / "crosswalks" / "ids.csv").write_text("old,new\n1,2\n")
        with whole_system({"name": "s", "rules": []}, tmp_path, monkeypatch) as system:
            system.ports.configuration.apply(
                {
                    "destinations": [{"name": "a", "type": "filesystem", "path": "a"}],
                    "crosswalk_sources": [{"name": "ids", "type": "csv", "path": "ids.csv"}],
                    "crosswalk_maps": [
                        {
                            "name": "mrn",
                            "source": "ids",
                            "match": [{"column": "old", "attribute": "PatientID"}],
                            "outputs": [{"column": "new"}],
                        }
                    ],
                    "rulesets": [{"name": "s", "rules": [rule]}],
                },
                by="test",
            )
            system.clock.advance(1)
            system.send(CT, ABOUT)
            receipt = system.receipts[0].receipt_id
            instance_actions.release(receipt, by="test", ports=system.ports)
            pump(system.ports)
            assert system.verdict() == "hold"


class TestTheLoopGuard:
    def test_r14_changes_an_instance_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with whole_system(cookbook("R14"), tmp_path, monkeypatch) as system:
            system.send({"StationName": "X", "MilitaryRank": "Major"}, ABOUT)
            copy = system.delivered("sample")
            system.send_file(copy, replace(ABOUT, calling_ae_title="SAMPLE"))
            assert system.instance()["returned"] is True
            assert system.verdict() == "discard"
            assert system.destinations() == []
            assert system.delivered("sample", 0) == copy

    def test_what_its_sender_sends_again_has_not_come_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in ("R14", "R13"):  # changed on its way, and unchanged
            with whole_system(cookbook(number), tmp_path / number, monkeypatch) as system:
                for _ in range(2):
                    sent = {"StationName": "X", "PatientName": "david"}
                    system.send_file(part10(sent), ABOUT)
                    assert system.instance()["returned"] is False
                    assert system.destinations() == ["sample"]

    def test_a_copy_that_another_system_has_converted_is_recognised(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A peer may send in another Transfer Syntax, and add Attributes of its own."""
        with whole_system(cookbook("R15"), tmp_path, monkeypatch) as system:
            system.send(CT, ABOUT)
            dataset = pydicom.dcmread(io.BytesIO(system.delivered("store")))
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            dataset.InstanceAvailability = "ONLINE"
            converted = io.BytesIO()
            dataset.save_as(converted, implicit_vr=True, little_endian=True)
            system.send_file(converted.getvalue(), ABOUT)
            assert system.instance()["returned"] is True

    def test_a_copy_under_another_sop_instance_uid_is_recognised(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = load(COOKBOOK / "per-destination.yaml")
        with whole_system(document, tmp_path, monkeypatch) as system:
            system.send(CT, ABOUT)
            renamed = system.delivered("research")
            system.send_file(renamed, ABOUT)
            assert system.receipts[1].sop_instance_uid != system.receipts[0].sop_instance_uid
            assert system.instance()["returned"] is True

    @pytest.mark.parametrize(("calling_ae_title", "returned"), [("PACS", True), ("CT_1", False)])
    def test_an_unchanged_instance_comes_back_from_the_peer_it_was_sent_to(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        calling_ae_title: str,
        returned: bool,
    ) -> None:
        """Else it would go to and fro for ever; so without any rule, too."""
        document = {"name": "s", "rules": []}
        with whole_system(document, tmp_path, monkeypatch) as system:
            pacs = {"name": "pacs", "type": "dimse", "host": "127.0.0.1", "port": 104}
            settings = {**system.ports.configuration.export()["settings"]}
            system.ports.configuration.apply(
                {
                    "destinations": [{**pacs, "ae_title": "PACS"}],
                    "rulesets": [],
                    "settings": {**settings, "default_route": ["pacs"]},
                },
                by="test",
            )
            system.clock.advance(1)
            monkeypatch.setattr("shared.pipeline.deliver._deliver", lambda *_: ("delivered", ""))
            for sender in ("CT_1", calling_ae_title):
                system.send_file(part10(CT), replace(ABOUT, calling_ae_title=sender))
            assert system.instance()["returned"] is returned
            assert system.verdict() == ("discard" if returned else "route")

    def test_a_ruleset_may_want_what_has_come_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = {**cookbook("R14"), "returned_instances": "process", "tests": []}
        with whole_system(document, tmp_path, monkeypatch) as system:
            system.send({"StationName": "X"}, ABOUT)
            system.send_file(system.delivered("sample"), ABOUT)
            assert system.instance()["returned"] is True
            assert system.verdict() == "route"


def mock_refusal(message: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise InvalidConfigurationError(Fault("rules", message))

    return refuse
