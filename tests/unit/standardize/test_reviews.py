"""People in charge: what waits for them, what they say, and what becomes of the Instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI

from shared.identity.identity import Identity
from shared.identity.settings import IdentitySettings
from shared.pipeline import instance_actions
from shared.pipeline.standardization_counts import StandardizationCounts
from shared.web import access, problems, standardize
from tests.unit.operating import System, running_system
from tests.unit.standardize.site import configure, delivered, image, send
from tests.unit.web_fakes import AUTHORIZED, KEY, client_over

API = "/api/v1/standardize"
# Two places in one text, for which there is no one term: 0.5 sure.
UNSURE: dict[str, Any] = {"BodyPartExamined": "", "SeriesDescription": "hand foot"}
UNKNOWN: dict[str, Any] = {"BodyPartExamined": "XQZ", "SeriesDescription": "abc"}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


@pytest.fixture
def client(system: System) -> FlaskClient:
    """The routes of standard terms alone: to build the whole API takes longer than to use it."""
    ports = system.ports
    settings = IdentitySettings(preset_key=KEY)
    identity = Identity(ports.documents, ports.secrets, ports.clock, settings)
    app = OpenAPI(
        "standardize",
        doc_ui=False,
        validation_error_status=422,
        validation_error_model=problems.Problem,
        validation_error_callback=problems.of_validation_error,
    )
    problems.install(app)
    access.install(app, identity, lambda: ports.configuration.get().settings, ports.clock)
    app.register_api(standardize.blueprint(ports))
    client: FlaskClient = app.test_client()
    return client


def get(client: FlaskClient, path: str) -> Any:
    answer = client.get(f"{API}/{path}", headers=AUTHORIZED)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def post(client: FlaskClient, path: str, document: Any = None, status: int = 200) -> Any:
    answer = client.post(f"{API}/{path}", json=document, headers=AUTHORIZED)
    assert answer.status_code == status, answer.text
    return answer.get_json()


def only(client: FlaskClient, state: str = "open") -> Mapping[str, Any]:
    (found,) = get(client, f"reviews?state={state}")["items"]
    return dict(found)


class TestWhatIsHeld:
    def test_goes_on_with_the_term_that_a_person_gives(
        self, system: System, client: FlaskClient
    ) -> None:
        configure(system, {"when_unsure": "hold"})
        receipts = send(system, *(image(n, **UNKNOWN) for n in range(3)))
        assert {system.instance(one)["state"] for one in receipts} == {"held"}
        key = only(client)["key"]
        answer = post(client, f"reviews/{key}/correct", {"value": "TSPINE"})
        assert answer["again"] == 3
        system.pump()
        for receipt in receipts:
            found = delivered(system, receipt)
            assert found.BodyPartExamined == "TSPINE"
            (item,) = found.OriginalAttributesSequence
            assert item.ModifiedAttributesSequence[0].BodyPartExamined == "XQZ"

    def test_goes_on_as_it_came_if_the_proposal_is_rejected(
        self, system: System, client: FlaskClient
    ) -> None:
        configure(system, {"when_unsure": "hold"})
        (receipt,) = send(system, image(**UNKNOWN))
        post(client, f"reviews/{only(client)['key']}/reject", {"reason": "no matter"})
        system.pump()
        assert delivered(system, receipt, "pacs").BodyPartExamined == "XQZ"
        assert get(client, "reviews")["items"] == []

    def test_later_instances_of_the_series_get_the_same(
        self, system: System, client: FlaskClient
    ) -> None:
        configure(system, {"when_unsure": "hold"})
        send(system, image(1, **UNKNOWN))
        post(client, f"reviews/{only(client)['key']}/correct", {"value": "TSPINE"})
        (late,) = send(system, image(2, **UNKNOWN))
        assert delivered(system, late).BodyPartExamined == "TSPINE"

    def test_can_be_released_as_any_other(self, system: System) -> None:
        configure(system, {"when_unsure": "hold"})
        (receipt,) = send(system, image(**UNKNOWN))
        instance_actions.release(receipt.receipt_id, by="test", ports=system.ports)
        system.pump()
        assert delivered(system, receipt, "pacs").BodyPartExamined == "XQZ"


class TestAProposal:
    @pytest.fixture
    def key(self, system: System, client: FlaskClient) -> str:
        configure(system, {"mode": "propose"})
        self.receipts = send(system, image(1), image(2))
        return str(only(client)["key"])

    def test_shows_why(self, client: FlaskClient, key: str) -> None:
        listed = only(client)
        assert (listed["proposed"], listed["provider"]) == ("TSPINE", "embedded")
        told = get(client, f"reviews/{key}")
        assert told["raw_value"] == "BWS"
        assert told["context"]["SeriesDescription"] == "BWS sag"
        assert told["evidence"][0]["phrase"]
        assert told["hits"] == 1

    def test_that_is_listed_tells_nothing_that_a_person_typed(
        self, client: FlaskClient, key: str
    ) -> None:
        """Lists are for everybody in operations; looking closer needs a right, and is recorded."""
        assert "BWS" not in str(only(client))

    def test_that_was_looked_at_is_recorded(
        self, system: System, client: FlaskClient, key: str
    ) -> None:
        get(client, f"reviews/{key}")
        assert "standardize.read" in [one["what"] for one in system.audit()]

    def test_that_is_approved_is_delivered_again(
        self, system: System, client: FlaskClient, key: str
    ) -> None:
        """`pacs` keeps what came first; but this is the same file, corrected."""
        for receipt in self.receipts:
            assert delivered(system, receipt, "pacs").BodyPartExamined == "BWS"
        assert post(client, f"reviews/{key}/approve")["again"] == 2
        system.pump()
        for receipt in self.receipts:
            assert delivered(system, receipt, "spare").BodyPartExamined == "TSPINE"
        assert system.entries() == []

    def test_that_is_approved_always_is_a_synonym_of_the_site(
        self, system: System, client: FlaskClient, key: str
    ) -> None:
        post(client, f"reviews/{key}/approve", {"always": True})
        configure(system)  # from now on it writes
        (receipt,) = send(system, image(series="another"))
        assert delivered(system, receipt).BodyPartExamined == "TSPINE"
        (told,) = system.instance(receipt)["standardized"]
        assert told["provider"] == "site"
        (synonym,) = get(client, "synonyms")["items"]
        assert (synonym["phrase"], synonym["value"]) == ("bws", "TSPINE")
        path = f"{API}/synonyms/{synonym['key']}"
        assert client.delete(path, headers=AUTHORIZED).status_code == 204
        assert client.delete(path, headers=AUTHORIZED).status_code == 404

    def test_said_twice_is_said_once(self, system: System, client: FlaskClient, key: str) -> None:
        post(client, f"reviews/{key}/approve")
        system.pump()
        assert post(client, f"reviews/{key}/approve")["again"] == 0
        assert [one["what"] for one in system.audit()].count("standardize.approved") == 1

    def test_that_is_rejected_is_not_delivered_again(
        self, system: System, client: FlaskClient, key: str
    ) -> None:
        assert post(client, f"reviews/{key}/reject")["again"] == 0
        post(client, f"reviews/{key}/revert", status=409)


class TestWhatWasApplied:
    def test_is_taken_back_with_redelivery(self, system: System, client: FlaskClient) -> None:
        configure(system, ruleset=STANDARDIZE_ONLY)
        receipts = send(system, image(1), image(2))
        assert delivered(system, receipts[0], "pacs").BodyPartExamined == "TSPINE"
        key = only(client, "applied")["key"]
        assert post(client, f"reviews/{key}/revert", {"reason": "wrong"})["again"] == 2
        system.pump()
        for receipt in receipts:
            found = delivered(system, receipt, "pacs")
            assert found.BodyPartExamined == "BWS"
            assert "OriginalAttributesSequence" not in found
        assert system.entries() == []
        (told,) = [one for one in system.audit() if one["what"] == "standardize.reverted"]
        assert (told["before"], told["reason"], told["provider"]) == ("TSPINE", "wrong", "embedded")

    def test_is_corrected_with_redelivery(self, system: System, client: FlaskClient) -> None:
        configure(system, ruleset=STANDARDIZE_ONLY)
        (receipt,) = send(system, image())
        key = only(client, "applied")["key"]
        post(client, f"reviews/{key}/correct", {"value": "LSPINE"})
        system.pump()
        assert delivered(system, receipt, "pacs").BodyPartExamined == "LSPINE"
        again = [one for one in system.peers["pacs"].sent if one.replaces]
        assert len(again) == 1

    def test_gives_no_way_to_anothers_file(self, system: System, client: FlaskClient) -> None:
        """Other bytes under the same UID, of another receipt, stay what policy made of them."""
        configure(system, ruleset=STANDARDIZE_ONLY)
        (receipt,) = send(system, image())
        send(system, image(PatientID="SOMEBODY-ELSE"))
        key = only(client, "applied")["key"]
        post(client, f"reviews/{key}/correct", {"value": "LSPINE"})
        system.pump()
        found = delivered(system, receipt, "pacs")
        assert (found.PatientID, found.BodyPartExamined) == ("P-4711", "LSPINE")

    def test_is_not_undone_by_a_message_that_comes_late(
        self, system: System, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An Instance on its way while a person decides otherwise gets the person's word."""
        configure(system, ruleset=STANDARDIZE_ONLY)
        send(system, image(1))
        receipt = system.receive(image(2))
        system.step(1)
        key = only(client, "applied")["key"]
        decided = system.ports.standardizers.answer
        post_once = [True]

        def late(*asked: Any) -> Any:
            found = decided(*asked)
            if post_once:
                post_once.clear()
                post(client, f"reviews/{key}/correct", {"value": "LSPINE"})
            return found

        monkeypatch.setattr(system.ports.standardizers, "answer", late)
        system.pump()
        assert delivered(system, receipt, "pacs").BodyPartExamined == "LSPINE"

    def test_is_not_corrected_to_what_is_no_term(self, system: System, client: FlaskClient) -> None:
        configure(system)
        send(system, image())
        key = only(client, "applied")["key"]
        answer = post(client, f"reviews/{key}/correct", {"value": "BACK PAIN"}, 422)
        assert answer["code"] == "no-term"

    def test_whose_file_is_gone_cannot_be_delivered_again(
        self, system: System, client: FlaskClient
    ) -> None:
        configure(system)
        (receipt,) = send(system, image())
        system.ports.objects.delete(receipt.file.object_name)
        answer = post(client, f"reviews/{only(client, 'applied')['key']}/revert")
        assert (answer["again"], answer["gone"]) == (0, 1)

    def test_is_no_synonym_if_its_file_is_gone(self, system: System, client: FlaskClient) -> None:
        """What cannot be done wholly is not begun."""
        configure(system)
        (receipt,) = send(system, image())
        system.ports.objects.delete(receipt.file.object_name)
        key = only(client, "applied")["key"]
        word = {"value": "LSPINE", "always": True}
        answer = post(client, f"reviews/{key}/correct", word, status=409)
        assert answer["code"] == "file-gone"
        assert only(client, "applied")["revision"] == 1
        assert get(client, "synonyms")["items"] == []


class TestTheReport:
    def test_counts_series_by_provider_and_what_people_made_of_them(
        self, system: System, client: FlaskClient
    ) -> None:
        configure(system)
        send(system, image(1), image(2))
        send(system, image(1, series="b", BodyPartExamined="HAND", SeriesDescription="HAND"))
        send(system, image(1, series="c", **UNKNOWN), image(1, series="d", **UNSURE))
        key = only(client, "applied")["key"]
        post(client, f"reviews/{key}/correct", {"value": "LSPINE"})
        rows = get(client, "report")["series"]
        (row,) = [one for one in rows if one["provider"] == "embedded"]
        assert {name: row[name] for name in ("applied", "kept", "abstained", "proposed")} == {
            "applied": 1,
            "kept": 1,
            "abstained": 1,
            "proposed": 1,
        }
        assert row["corrected"] == 1

    def test_has_a_persons_word_at_once(self, system: System, client: FlaskClient) -> None:
        """A command ends right after it: what it would write a second later is never written."""
        configure(system)
        send(system, image())
        post(client, f"reviews/{only(client, 'applied')['key']}/revert")
        others = StandardizationCounts(system.ports.documents, system.ports.clock)
        settled = [words[-1] for words in others.totals() if words[0] == "settled"]
        assert settled == ["reverted"]

    def test_tells_decisions_that_an_equal_question_had_before(
        self, system: System, client: FlaskClient
    ) -> None:
        configure(system)
        send(system, image(1), image(1, series="b"), image(1, series="c"))
        found = get(client, "report")
        (row,) = found["series"]
        assert (row["applied"], row["cached"]) == (3, 2)
        for one in get(client, "reviews?state=applied")["items"]:
            assert get(client, f"reviews/{one['key']}")["cache_hits"] == 2
        (asked,) = found["providers"]
        assert (asked["provider"], asked["vocabulary"]) == ("embedded", "body-part-examined")
        assert (asked["sure"], asked["abstained"], asked["failed"]) == (1, 0, {})


class TestAsking:
    def test_needs_a_key(self, client: FlaskClient) -> None:
        assert client.get(f"{API}/reviews").status_code == 401

    def test_is_a_part_of_the_whole_api(self, system: System) -> None:
        answer = client_over(system.ports).get(f"{API}/reviews", headers=AUTHORIZED)
        assert answer.get_json() == {"items": [], "next_cursor": None}

    def test_for_what_is_not_there_is_404(self, client: FlaskClient) -> None:
        for what in ("approve", "reject", "revert", "ask-again"):
            post(client, f"reviews/none/{what}", status=404)

    def test_again_asks_the_providers_again(self, system: System, client: FlaskClient) -> None:
        configure(system, {"context": ["Modality"]})
        (receipt,) = send(system, image(BodyPartExamined=""))
        key = only(client, "unknown")["key"]
        configure(system)  # with the series description it is known
        assert post(client, f"reviews/{key}/ask-again")["again"] == 1
        system.pump()
        assert delivered(system, receipt).BodyPartExamined == "TSPINE"


STANDARDIZE_ONLY = {
    "name": "terms",
    "execution_mode": "ALL_MATCHES",
    "rules": [
        {
            "name": "terms",
            "conditions": [{"type": "tag_exists", "tag": "Modality"}],
            "actions": [{"type": "standardize", "standardizer": "body-parts"}],
            "storage_backends": ["pacs"],
        }
    ],
}
