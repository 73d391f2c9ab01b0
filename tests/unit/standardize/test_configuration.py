"""Standardizers and vocabularies as the configuration says them, and rules that name them."""

from __future__ import annotations

from typing import Any

import pytest

from shared.adapters.cloud.environment import CloudEnvironment
from shared.adapters.cloud.platform import first_configuration
from shared.config.service import check
from shared.errors import InvalidConfigurationError
from shared.rules import check_ruleset
from tests.unit.standardize.site import ROUTES

BODY_PARTS = {"name": "body-parts", "attributes": ["BodyPartExamined"]}
VERTEX = {"type": "vertex", "project": "p", "location": "europe-west4", "model": "m"}
PLACES = {
    "destinations": [
        {"name": name, "type": "filesystem", "path": name} for name in ("pacs", "spare")
    ]
}


def faults(**document: Any) -> str:
    with pytest.raises(InvalidConfigurationError) as caught:
        check(document)
    return "\n".join(map(str, caught.value.faults))


class TestAStandardizer:
    def test_may_be_as_short_as_this(self) -> None:
        found = check({"standardizers": [BODY_PARTS]}).standardizer("body-parts")
        assert found is not None
        assert [one.type for one in found.providers] == ["embedded"]

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"attributes": []}, "standardizers[0].attributes"),
            ({"attributes": ["PatientName"]}, "none of the Attributes that a provider may"),
            ({"attributes": ["BodyPartExamind"]}, "did you mean BodyPartExamined?"),
            ({"attributes": ["BodyPartExamined"] * 2}, "is there twice"),
            ({"attributes": ["SeriesDescription"]}, "SeriesDescription needs one of the site"),
            ({"context": ["PatientID"]}, "standardizers[0].context[0]"),
            ({"context": ["AccessionNumber"]}, "none of the Attributes"),
            ({"providers": []}, "standardizers[0].providers"),
            ({"providers": [{"type": "openia"}]}, "did you mean openai?"),
            ({"providers": [{**VERTEX, "threshold": 0}]}, "threshold"),
            ({"providers": [{**VERTEX, "timeout_s": 600}]}, "timeout_s"),
            ({"providers": [{**VERTEX, "modell": "m"}]}, "modell"),
            (
                {"providers": [{"type": "openai", "model": "m", "base_url": "http://u:p@x"}]},
                "takes no user and password",
            ),
            (
                {"providers": [{**VERTEX, "base_url": "https://elsewhere.example"}]},
                "shown to https://*.googleapis.com alone",
            ),
            (
                {
                    "providers": [
                        {"type": "embedded"},
                        {"type": "openai", "model": "m", "base_url": "http://169.254.169.254/v1"},
                    ]
                },
                "providers[1].base_url: is refused",
            ),
            ({"write_to": {"BodyPartExamined": "NoSuchThing"}}, "write_to"),
            ({"write_to": {"Laterality": "ImageComments"}}, "is none of the attributes"),
            ({"when_unsure": "guess"}, "when_unsure"),
            ({"fill_anatomic_region": "yes"}, "fill_anatomic_region"),
            ({"attributes": ["Laterality"], "fill_anatomic_region": True}, "BodyPartExamined"),
            (
                {"vocabularies": {"BodyPartExamined": "nowhere"}},
                "there is no vocabulary 'nowhere'",
            ),
        ],
    )
    def test_is_refused_with_what_is_wrong(self, change: dict[str, Any], fault: str) -> None:
        assert fault in faults(standardizers=[{**BODY_PARTS, **change}])

    def test_cannot_go_while_a_rule_names_it(self) -> None:
        document = {**PLACES, "rulesets": [ROUTES]}
        check({**document, "standardizers": [BODY_PARTS]})
        told = faults(**document)
        assert "rulesets[0].rules[0].actions[0].standardizer" in told
        assert "there is no standardizer 'body-parts'" in told


class TestAVocabulary:
    def test_is_refused_with_the_lines_at_fault(self) -> None:
        csv = "term,synonyms\nKNEE,knie\nKNEE,kolano\n,elbow\nHIP,knie\n"
        told = faults(vocabularies=[{"name": "own", "csv": csv}])
        for line in ("line 3: 'KNEE' is already a term", "line 4: no term", "line 5"):
            assert f"vocabularies[0].csv: {line}" in told

    def test_whose_terms_do_not_fit_the_attribute_is_refused(self) -> None:
        told = faults(
            vocabularies=[{"name": "own", "csv": "term\nleft knee joint space\n"}],
            standardizers=[{**BODY_PARTS, "vocabularies": {"BodyPartExamined": "own"}}],
        )
        assert "standardizers[0].vocabularies.BodyPartExamined" in told

    def test_cannot_go_while_a_standardizer_names_it(self) -> None:
        entity = {
            "name": "procedures",
            "attributes": ["StudyDescription"],
            "vocabularies": {"StudyDescription": "own"},
        }
        own = {"name": "own", "csv": "term\nMR Knee left\n"}
        check({"standardizers": [entity], "vocabularies": [own]})
        assert "there is no vocabulary 'own'" in faults(standardizers=[entity])


class TestARule:
    def test_that_waits_for_a_study_cannot_standardize(self) -> None:
        rule = {
            "name": "whole study",
            "level": "study",
            "conditions": [],
            "completion": {"quiet_period_s": 5},
            "actions": [{"type": "standardize", "standardizer": "body-parts"}],
        }
        with pytest.raises(InvalidConfigurationError, match="a study rule cannot"):
            check_ruleset({"name": "r", "rules": [rule]}, study_rules=True)

    def test_at_reception_cannot(self) -> None:
        rules = ROUTES["rules"][:1]
        with pytest.raises(InvalidConfigurationError, match="only `reject` or `stop`"):
            check_ruleset({"name": "r", "stage": "reception", "rules": rules})

    def test_tells_in_its_tests_what_the_standardizer_says(self) -> None:
        """So a ruleset that routes by standard terms can be tested before it is live."""
        facts = {"standardized": {"body-parts": {"BodyPartExamined": "TSPINE"}}}
        test = {
            "attributes": {"Modality": "CT", "BodyPartExamined": "BWS"},
            "facts": facts,
            "expect": {"destinations": ["spare"], "changes": {"BodyPartExamined": "TSPINE"}},
        }
        check_ruleset({**ROUTES, "tests": [test]})
        without = {**test, "facts": {}}
        with pytest.raises(InvalidConfigurationError, match="destinations"):
            check_ruleset({**ROUTES, "tests": [without]})

    def test_that_tells_nonsense_is_refused(self) -> None:
        test = {
            "attributes": {"Modality": "CT"},
            "facts": {"standardized": {"body-parts": {"BodyPartExamined": 7}}},
            "expect": {},
        }
        with pytest.raises(InvalidConfigurationError, match="must be text"):
            check_ruleset({**ROUTES, "tests": [test]})


@pytest.mark.parametrize(
    ("settings", "types"),
    [
        ({}, ["embedded"]),
        (
            {"AXIOM_VERTEX_LOCATION": "europe-west4", "AXIOM_VERTEX_MODEL": "gemini-x"},
            ["embedded", "vertex"],
        ),
    ],
)
def test_a_new_system_in_the_cloud_goes_on_to_gemini(
    settings: dict[str, str], types: list[str]
) -> None:
    environment = CloudEnvironment.read(
        {
            "GOOGLE_CLOUD_PROJECT": "my-project",
            "AXIOM_BUCKET": "bucket",
            "AXIOM_AUDIENCE": "https://axiom.example",
            "AXIOM_CALLERS": "caller@my-project.iam.gserviceaccount.com",
            **settings,
        }
    )
    found = check(first_configuration(environment)).standardizer("body-parts")
    assert found is not None
    assert [one.type for one in found.providers] == types
