"""What people do with what failed or waits: retry, reroute, release, discard, one or many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    DestinationRefusedError,
    DestinationUnavailableError,
    NeedsCurrentRulesError,
    PermanentError,
    WrongStateError,
)
from shared.messages import Receipt, Topic
from shared.pipeline import instance_actions, jobs, rules
from shared.pipeline.delivery_records import is_overtaken
from shared.pipeline.instance_records import receipt_of
from tests.data import build
from tests.unit.operating import System, running_system
from tests.unit.web_fakes import AUTHORIZED, client_over

API = "/api/v1"
FIRST, OTHER = build.ct(), build.ct(patient_id="SOMEBODY-ELSE")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


@pytest.fixture
def client(system: System) -> FlaskClient:
    return client_over(system.ports)


def refuse(_: OutgoingInstance) -> None:
    raise DestinationRefusedError("pacs", "A900H")


def mend(system: System) -> None:
    for peer in system.peers.values():
        peer.before = peer.after = lambda instance: None


def refused(system: System, *, instances: int = 1) -> list[Receipt]:
    """Instances that `pacs` refused, each with an entry."""
    system.peers["pacs"].before = refuse
    receipts = [system.receive(build.ct(instance=f"ct-{n}")) for n in range(instances)]
    system.pump()
    mend(system)
    return receipts


def failing(system: System, *names: str) -> None:
    """Rules that cannot be carried out on any Instance; then it is held."""
    set_date = {"type": "set", "tag": "StudyDate", "value": "{PatientID}"}
    rules = [{"name": name, "actions": [set_date]} for name in names]
    ruleset = {"name": "failing", "execution_mode": "ALL_MATCHES", "rules": rules}
    system.ports.configuration.create("rulesets", ruleset, by="test")


def quarantined(system: System) -> Receipt:
    system.on_conflict("quarantine")
    system.receive(FIRST)
    system.pump()
    receipt = system.receive(OTHER)
    system.pump()
    return receipt


def be_faster(system: System) -> None:
    """Have what is published next worked off before whoever publishes it goes on."""
    publish = system.bus.publish

    def publish_and_work(messages: Any) -> None:
        publish(messages)
        system.bus.publish = publish  # type: ignore[method-assign]
        system.pump()

    system.bus.publish = publish_and_work  # type: ignore[method-assign]


def post(client: FlaskClient, path: str, document: Any = None, status: int = 200) -> Any:
    response = client.post(f"{API}/{path}", json=document, headers=AUTHORIZED)
    assert response.status_code == status, response.text
    return response.get_json()


class TestARetry:
    def test_delivers_what_failed(self, system: System, client: FlaskClient) -> None:
        (receipt,) = refused(system)
        (entry,) = system.entries()
        assert post(client, f"exceptions/{entry['id']}/retry")["status"] == "retried"
        system.pump()
        assert system.delivery(receipt)["state"] == "delivered"

    def test_of_what_is_urgent_is_urgent(self, system: System) -> None:
        urgent = {"type": "set_priority", "priority": "high"}
        every = {"name": "every", "actions": [urgent], "storage_backends": ["pacs"]}
        ruleset = {"name": "all", "execution_mode": "ALL_MATCHES", "rules": [every]}
        system.ports.configuration.create("rulesets", ruleset, by="test")
        refused(system)
        (entry,) = system.entries()
        system.ports.exceptions.retry(entry["id"], by="test")
        (message,) = system.bus.in_order([Topic.DELIVERY_REQUESTED], limit=2)
        assert message.high_priority

    def test_elsewhere_gives_up_the_first_destination(
        self, system: System, client: FlaskClient
    ) -> None:
        (receipt,) = refused(system)
        (entry,) = system.entries()
        post(client, f"exceptions/{entry['id']}/retry", {"destination": "spare"})
        system.pump()
        assert len(system.peers["spare"].stored) == 1
        assert system.delivery(receipt)["state"] == "discarded"
        assert "spare" in system.delivery(receipt)["reason"]
        plans = system.instance(receipt)["deliveries"]
        assert [plan["destination"] for plan in plans] == ["pacs", "spare"]

    def test_elsewhere_holds_against_a_correction_that_nobody_ordered(self, system: System) -> None:
        """What waits for the other destination goes there, though no rule sends it there."""
        (receipt,) = refused(system)
        (entry,) = system.entries()
        system.ports.exceptions.retry(entry["id"], by="test", destination="spare")
        for _ in range(2):
            known = receipt_of(system.instance(receipt))
            rules.decide_anew(known, (), system.ports, corrects=True)
            (leased,) = system.bus.lease([Topic.INSTANCE_ACCEPTED], limit=1, lease_s=60)
            system.call(leased)
            system.bus.settle(acknowledged=[leased.message_id])
        system.pump()
        assert len(system.peers["spare"].stored) == 1
        assert not system.peers["pacs"].stored
        assert system.instance(receipt)["state"] == "routed"

    def test_back_again_holds_against_a_correction_that_nobody_ordered(
        self, system: System
    ) -> None:
        (receipt,) = refused(system)
        (entry,) = system.entries()
        system.peers["spare"].before = refuse
        system.ports.exceptions.retry(entry["id"], by="test", destination="spare")
        system.pump()
        (spare,) = system.entries(destination="spare")
        system.ports.exceptions.retry(spare["id"], by="test", destination="pacs")
        assert system.delivery(receipt)["state"] == "retrying"
        assert "reason" not in system.delivery(receipt)
        rules.decide_anew(receipt_of(system.instance(receipt)), (), system.ports, corrects=True)
        (leased,) = system.bus.lease([Topic.INSTANCE_ACCEPTED], limit=1, lease_s=60)
        system.call(leased)
        system.pump()
        assert len(system.peers["pacs"].stored) == 1

    def test_is_planned_though_the_rules_of_today_send_it_elsewhere(self, system: System) -> None:
        """Its received file is to stay until it is there."""
        (receipt,) = refused(system)
        (entry,) = system.entries()
        system.configure(default_route=["spare"])
        system.ports.exceptions.retry(entry["id"], by="test", with_current_rules=True)
        system.pump()
        assert [one["destination"] for one in system.instance(receipt)["deliveries"]] == ["spare"]
        for _ in range(2):
            system.ports.exceptions.retry(entry["id"], by="test")
        plans = system.instance(receipt)["deliveries"]
        assert [plan["destination"] for plan in plans] == ["spare", "pacs"]
        system.pump()
        assert len(system.peers["pacs"].stored) == 1

    def test_can_go_back_to_a_destination_that_was_given_up(
        self, system: System, client: FlaskClient
    ) -> None:
        (receipt,) = refused(system)
        (entry,) = system.entries()
        system.peers["spare"].before = refuse
        post(client, f"exceptions/{entry['id']}/retry", {"destination": "spare"})
        system.pump()
        (spare,) = system.entries(destination="spare")
        post(client, f"exceptions/{spare['id']}/retry", {"destination": "pacs"})
        system.pump()
        assert system.delivery(receipt)["state"] == "delivered"

    def test_with_the_current_rules_decides_about_the_received_file(
        self, system: System, client: FlaskClient
    ) -> None:
        (receipt,) = refused(system)
        (entry,) = system.entries()
        changed = {
            "name": "ct",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
            "actions": [{"type": "set", "tag": "PatientID", "value": "CHANGED"}],
            "destinations": ["spare"],
        }
        system.ports.configuration.create("rulesets", {"name": "r", "rules": [changed]}, by="t")
        post(client, f"exceptions/{entry['id']}/retry", {"with_current_rules": True})
        system.pump()
        assert not system.peers["pacs"].stored
        assert len(system.peers["spare"].stored) == 1
        assert system.instance(receipt)["matched_rules"] == ["r/ct"]
        assert system.instance(receipt)["decision"] == 1

    def test_of_a_failed_rule_is_one_with_the_current_rules(
        self, system: System, client: FlaskClient
    ) -> None:
        """Nothing else of it can be tried again: the Instance went on without the rule."""
        bad = {
            "name": "bad",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
            "actions": [{"type": "set", "tag": "StudyDate", "value": "{PatientID}"}],
        }
        system.ports.configuration.create(
            "rulesets",
            {
                "name": "r",
                "execution_mode": "ALL_MATCHES",
                "rules": [bad, {**bad, "name": "worse"}, {"name": "all", "destinations": ["pacs"]}],
            },
            by="test",
        )
        receipt = system.receive(FIRST)
        system.pump()
        assert system.delivery(receipt)["state"] == "delivered"
        entry, other = system.entries(stage="apply_rules")
        with pytest.raises(NeedsCurrentRulesError, match="the Instance was accepted"):
            system.ports.exceptions.retry(entry["id"], by="test")
        shown = post(client, f"exceptions/{entry['id']}/retry", {}, 409)
        assert "sender" not in str(shown)
        job = jobs.create(jobs.Action("exceptions", "retry"), {}, by="test", ports=system.ports)
        jobs.work(job["id"], system.ports)
        found = system.ports.documents.get("jobs", job["id"])
        assert found is not None
        assert (found.data["skipped"], found.data["failed"]) == (0, 2)
        assert "current rules" in found.data["failures"][0]["reason"]
        system.ports.configuration.apply({"rulesets": []}, by="test")
        system.ports.exceptions.retry(entry["id"], by="test", with_current_rules=True)
        system.pump()
        assert system.instance(receipt)["decision"] == 1
        assert {one["status"] for one in system.entries()} == {"retried"}, other["id"]

    def test_that_deals_with_one_failed_rule_closes_all_until_they_fail_again(
        self, system: System
    ) -> None:
        failing(system, "one", "two")
        system.receive(FIRST)
        system.pump()
        first, _ = system.entries()
        system.ports.exceptions.retry(first["id"], by="test", with_current_rules=True)
        assert not system.entries(status="open")
        system.pump()
        assert len(system.entries(status="open")) == 2
        system.ports.exceptions.retry(first["id"], by="test", destination="spare")
        system.pump()
        assert not system.entries(status="open")
        assert len(system.peers["spare"].stored) == 1

    def test_of_what_a_rule_rejected_asks_the_current_rules(
        self, system: System, client: FlaskClient
    ) -> None:
        reject = {"name": "no", "actions": [{"type": "reject", "reason": "not ours"}]}
        system.ports.configuration.create("rulesets", {"name": "r", "rules": [reject]}, by="test")
        receipt = system.receive(FIRST)
        system.pump()
        (entry,) = system.entries()
        assert entry["message"] == "rule r/no: not ours"
        path = f"{API}/instances/{receipt.receipt_id}/explain"
        told = client.get(path, headers=AUTHORIZED).get_json()
        assert told["decision"]["error"] == "apply_rules rejected the Instance: rule r/no: not ours"
        assert [(one["rule"], one["matched"]) for one in told["rules"]] == [("r/no", True)]
        system.ports.configuration.apply({"rulesets": []}, by="test")
        post(client, f"exceptions/{entry['id']}/retry")
        system.pump()
        assert system.delivery(receipt)["state"] == "delivered"

    def test_takes_no_unknown_destination_and_no_two_wishes(
        self, system: System, client: FlaskClient
    ) -> None:
        refused(system)
        path = f"exceptions/{system.entries()[0]['id']}/retry"
        post(client, path, {"destination": "nowhere"}, 422)
        post(client, path, {"destination": "spare", "with_current_rules": True}, 422)
        post(client, path, {"destinatoin": "spare"}, 422)
        assert system.entries()[0]["status"] == "open"

    def test_that_was_published_but_not_noted_delivers_once(self, system: System) -> None:
        """We ended in between: the entry is still open, and somebody retries it again."""
        refused(system)
        (entry,) = system.entries()
        system.ports.exceptions.retry(entry["id"], by="test")
        system.ports.exceptions.retry(entry["id"], by="test")
        system.pump()
        assert len(system.peers["pacs"].stored) == 1
        assert len(system.peers["pacs"].sent) == 2  # the refused one, and one

    def test_that_fails_again_at_once_leaves_its_entry_open(
        self, system: System, client: FlaskClient
    ) -> None:
        """The stage may be done before the retry is noted, and nobody else tells of the failure."""
        (receipt,) = refused(system)
        (entry,) = system.entries()
        system.peers["pacs"].before = refuse
        be_faster(system)
        assert post(client, f"exceptions/{entry['id']}/retry")["status"] == "open"
        assert system.delivery(receipt)["state"] == "failed"
        (entry,) = system.entries()
        assert (entry["status"], entry["attempts"]) == ("open", 2)
        assert [step["status"] for step in entry["history"]] == ["retried"]
        (step,) = system.done()
        assert (step["before"], step["after"]) == ("open", "open")


class TestADiscard:
    def test_needs_a_reason(self, system: System, client: FlaskClient) -> None:
        refused(system)
        path = f"exceptions/{system.entries()[0]['id']}/discard"
        for document in (None, {}, {"reason": ""}, {"reason": "  "}):
            post(client, path, document, 422)

    def test_is_final_and_says_who_and_why(self, system: System, client: FlaskClient) -> None:
        (receipt,) = refused(system)
        (entry,) = system.entries()
        shown = post(client, f"exceptions/{entry['id']}/discard", {"reason": "a phantom"})
        assert shown["status"] == "discarded"
        assert system.delivery(receipt)["state"] == "discarded"
        with pytest.raises(WrongStateError):
            system.ports.exceptions.retry(entry["id"], by="test")
        (step,) = system.done()
        assert (step["what"], step["id"]) == ("exceptions.discard", entry["id"])
        assert (step["before"], step["after"]) == ("open", "discarded")
        assert (step["reason"], step["who"]) == ("a phantom", "preset (key preset)")

    def test_holds_against_a_message_that_still_comes(self, system: System) -> None:
        refused(system)
        (entry,) = system.entries()
        system.ports.exceptions.retry(entry["id"], by="test")
        system.ports.exceptions.discard(entry["id"], by="test", reason="changed my mind")
        system.pump()
        # The retry was ordered before it was given up, but counts as a later order than the first.
        assert len(system.peers["pacs"].stored) <= 1

    def test_holds_against_a_correction_that_nobody_ordered(self, system: System) -> None:
        """A standard term is corrected, say, and the Instance is of the wrong patient."""
        (receipt,) = refused(system)
        (entry,) = system.entries()
        system.ports.exceptions.discard(entry["id"], by="test", reason="another patient's")
        known = receipt_of(system.instance(receipt))
        rules.decide_anew(known, (), system.ports, corrects=True)
        system.pump()
        assert not system.peers["pacs"].stored
        instance, delivery = system.instance(receipt), system.delivery(receipt)
        assert delivery["state"] == "discarded"
        assert not is_overtaken(delivery, instance["deliveries"][0], instance)
        rules.decide_anew(known, (), system.ports)
        system.pump()
        assert system.delivery(receipt)["state"] == "delivered"


class TestWhatWaits:
    def test_is_released_to_the_current_rules(self, system: System, client: FlaskClient) -> None:
        system.configure(default_route=[])
        receipt = system.receive(FIRST)
        system.pump()
        assert system.instance(receipt)["state"] == "held"
        system.configure()
        post(client, f"instances/{receipt.receipt_id}/release", status=202)
        assert system.instance(receipt)["state"] == "released"
        system.pump()
        assert system.delivery(receipt)["state"] == "delivered"

    def test_is_released_even_if_the_rules_are_faster(self, system: System) -> None:
        """The message may be worked off before the document says that it is released."""
        system.configure(default_route=[])
        receipt = system.receive(FIRST)
        system.pump()
        system.configure()
        be_faster(system)
        instance_actions.release(receipt.receipt_id, by="test", ports=system.ports)
        assert system.instance(receipt)["state"] == "routed"
        assert system.delivery(receipt)["state"] == "delivered"

    @pytest.mark.parametrize("action", ["reroute", "release"])
    def test_is_set_aside_again_even_if_its_delivery_is_faster(
        self, system: System, action: str
    ) -> None:
        """Otherwise nobody would ever hear of it: on its way, and without an open entry."""
        receipt = quarantined(system)
        be_faster(system)
        if action == "reroute":
            instance_actions.reroute(receipt.receipt_id, "pacs", by="test", ports=system.ports)
        else:
            instance_actions.release(receipt.receipt_id, by="test", ports=system.ports)
        assert system.delivery(receipt)["state"] == "quarantined"
        assert system.instance(receipt)["state"] == "quarantined"
        (entry,) = system.entries()
        assert (entry["status"], entry["attempts"]) == ("open", 2)

    def test_is_rerouted(self, system: System, client: FlaskClient) -> None:
        receipt = quarantined(system)
        path = f"instances/{receipt.receipt_id}/reroute"
        post(client, path, {}, 422)
        post(client, path, {"destination": "nowhere"}, 422)
        post(client, path, {"destination": "spare"}, 202)
        system.pump()
        assert list(system.peers["spare"].stored.values()) == [OTHER]
        assert system.instance(receipt)["state"] == "routed"
        assert system.delivery(receipt)["state"] == "discarded"
        assert not system.entries(status="open")
        post(client, path, {"destination": "spare"}, 409)

    @pytest.mark.parametrize("action", ["reroute", "release", "discard"])
    def test_has_no_open_entry_of_a_failed_rule_any_more(
        self, system: System, client: FlaskClient, action: str
    ) -> None:
        failing(system, "one")
        receipt = system.receive(FIRST)
        system.pump()
        assert system.instance(receipt)["state"] == "held"
        body = {"reroute": {"destination": "spare"}, "discard": {"reason": "a test"}}
        path = f"instances/{receipt.receipt_id}/{action}"
        post(client, path, body.get(action, {}), 202)
        (entry,) = system.entries()
        assert entry["status"] == ("discarded" if action == "discard" else "retried")

    def test_is_discarded(self, system: System, client: FlaskClient) -> None:
        receipt = quarantined(system)
        path = f"instances/{receipt.receipt_id}/discard"
        post(client, path, {}, 422)
        post(client, path, {"reason": "sent twice"}, 202)
        assert system.instance(receipt)["state"] == "discarded"
        assert system.instance(receipt)["reason"] == "sent twice"
        (entry,) = system.entries()
        assert entry["status"] == "discarded"
        assert [step["what"] for step in system.done()] == [
            "exceptions.discard",
            "instances.discard",
        ]

    def test_is_listed_by_state(self, system: System, client: FlaskClient) -> None:
        receipt = quarantined(system)
        query = {"state": "quarantined"}
        listed = client.get(f"{API}/instances", query_string=query, headers=AUTHORIZED).get_json()
        assert [one["receipt_id"] for one in listed["items"]] == [receipt.receipt_id]
        assert "SOMEBODY" not in str(listed)


class TestInBulk:
    def test_a_dry_run_counts_and_does_nothing(self, system: System, client: FlaskClient) -> None:
        refused(system, instances=3)
        document = {"action": "retry", "filter": {"destination": "pacs"}, "dry_run": True}
        shown = post(client, "exceptions/bulk", document)
        assert shown == {"dry_run": True, "action": "retry", "count": 3}
        assert len(system.entries(status="open")) == 3
        document["filter"] = {"q": "no such words"}
        assert post(client, "exceptions/bulk", document)["count"] == 0

    def test_a_job_does_it_and_can_be_watched(self, system: System, client: FlaskClient) -> None:
        receipts = refused(system, instances=3)
        document = {"action": "retry", "filter": {"q": "a900h"}, "destination": "spare"}
        job = post(client, "exceptions/bulk", document, 202)
        assert (job["state"], job["total"], job["done"]) == ("running", 3, 0)
        system.pump()
        seen = client.get(f"{API}/jobs/{job['id']}", headers=AUTHORIZED).get_json()
        assert (seen["state"], seen["done"], seen["failed"]) == ("finished", 3, 0)
        assert len(system.peers["spare"].stored) == len(receipts)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"action": "forget", "filter": {}},
            {"action": "discard", "filter": {}},
            {"action": "archive", "filter": {}, "destination": "spare"},
            {"action": "retry", "filter": {"colour": "red"}},
            {"action": "retry", "filter": {"since": "yesterday"}},
            {"action": "retry", "filter": {"category": "netwrk"}},
            {"action": "retry", "filter": {"stage": "deliver"}},
            {"action": "retry", "filter": {}, "destination": "nowhere"},
            {"action": "retry"},
            {"filter": {}},
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_done(
        self, client: FlaskClient, wrong: dict[str, Any]
    ) -> None:
        post(client, "exceptions/bulk", wrong, 422)

    def test_a_job_goes_on_where_its_process_was_killed(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs, "_BATCH", 2)
        refused(system, instances=5)
        action = jobs.Action("exceptions", "discard", reason="a phantom")
        job = jobs.create(action, {}, by="test", ports=system.ports)
        carry_out, calls = jobs.Action.carry_out, []

        def killed(self: jobs.Action, key: str, **how: Any) -> Any:
            calls.append(key)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return carry_out(self, key, **how)

        monkeypatch.setattr(jobs.Action, "carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            jobs.work(job["id"], system.ports)
        assert jobs.work(job["id"], system.ports)
        found = system.ports.documents.get("jobs", job["id"])
        assert found is not None
        assert (found.data["done"], found.data["total"]) == (5, 5)
        assert all(len(entry["history"]) == 1 for entry in system.entries())

    def test_instances_are_released_rerouted_and_discarded(
        self, system: System, client: FlaskClient
    ) -> None:
        system.configure(default_route=[])
        receipts = [system.receive(build.ct(instance=f"ct-{n}")) for n in range(3)]
        system.pump()
        document = {"action": "reroute", "destination": "spare", "filter": {"state": "held"}}
        post(client, "instances/bulk", document, 202)
        system.pump()
        assert len(system.peers["spare"].stored) == 3
        assert {system.instance(receipt)["state"] for receipt in receipts} == {"routed"}
        assert post(client, "instances/bulk", {"action": "release", "dry_run": True})["count"] == 0

    def test_refused_senders_are_skipped_by_a_retry(self, system: System) -> None:
        with pytest.raises(PermanentError):
            system.receive(build.text_file())
        system.pump()
        job = jobs.create(jobs.Action("exceptions", "retry"), {}, by="test", ports=system.ports)
        jobs.work(job["id"], system.ports)
        found = system.ports.documents.get("jobs", job["id"])
        assert found is not None
        assert (found.data["skipped"], found.data["failed"]) == (1, 0)


class TestTheAuditLog:
    def test_is_paged_newest_first(self, system: System, client: FlaskClient) -> None:
        refused(system, instances=3)
        for entry in system.entries():
            system.ports.exceptions.archive(entry["id"], by="test")
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = client.get(f"{API}/audit", query_string=query, headers=AUTHORIZED).get_json()
            seen += [one["id"] for one in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == [step["id"] for step in system.audit()][::-1]
        late = client.get(
            f"{API}/audit", query_string={"since": "2999-01-01"}, headers=AUTHORIZED
        ).get_json()
        assert late["items"] == []


class TestDestinations:
    def test_tell_what_waits_and_since_when(self, system: System, client: FlaskClient) -> None:
        def down(_: OutgoingInstance) -> None:
            raise DestinationUnavailableError("pacs", "no answer in time")

        system.peers["pacs"].before = down
        system.receive(FIRST)
        system.pump(most=5)
        shown = client.get(f"{API}/destinations/pacs/state", headers=AUTHORIZED).get_json()
        assert (shown["waiting"], shown["retrying"], shown["circuit"]) == (1, 1, "closed")
        names = client.get(f"{API}/destinations", headers=AUTHORIZED).get_json()["items"]
        assert [one["destination"] for one in names] == ["pacs", "spare"]
        missing = client.get(f"{API}/destinations/nowhere/state", headers=AUTHORIZED)
        assert missing.status_code == 404


class Life(RuleBasedStateMachine):
    """Whatever comes in whatever order, every Instance is accounted for."""

    home: Path
    set_home: Any

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.running = running_system(Path(self.folder.name), self.set_home)
        self.system = next(self.running)
        self.receipts: list[Receipt] = []

    @rule(number=st.integers(0, 2), patient=st.sampled_from(["A", "B"]))
    def receive(self, number: int, patient: str) -> None:
        part10 = build.ct(4, 4, instance=f"ct-{number}", patient_id=patient)
        self.receipts.append(self.system.receive(part10))

    @rule(steps=st.integers(1, 8), again=st.booleans())
    def work(self, steps: int, again: bool) -> None:
        for _ in range(steps):
            self.system.step(again=again)

    @rule(mood=st.sampled_from(["well", "refuse", "down", "lose the answer"]))
    def treat(self, mood: str) -> None:
        def down(_: OutgoingInstance) -> None:
            raise DestinationUnavailableError("pacs", "no answer in time")

        peer = self.system.peers["pacs"]
        mend(self.system)
        if mood == "refuse":
            peer.before = refuse
        elif mood == "down":
            peer.before = down
        elif mood == "lose the answer":
            peer.after = down

    @rule(policy=st.sampled_from(["keep_first", "replace", "quarantine"]))
    def decide(self, policy: str) -> None:
        self.system.on_conflict(policy)

    @rule(route=st.sampled_from([["pacs"], [], ["pacs", "spare"]]))
    def route(self, route: list[str]) -> None:
        self.system.configure(default_route=route)

    @precondition(lambda self: self.system.entries())
    @rule(data=st.data(), what=st.sampled_from(["retry", "elsewhere", "anew", "discard"]))
    def work_off(self, data: st.DataObject, what: str) -> None:
        entry = data.draw(st.sampled_from(self.system.entries()))
        log = self.system.ports.exceptions
        try:
            if what == "discard":
                log.discard(entry["id"], by="test", reason="tested")
            elif what == "anew":
                log.retry(entry["id"], by="test", with_current_rules=True)
            else:
                to = "spare" if what == "elsewhere" else ""
                log.retry(entry["id"], by="test", destination=to)
        except WrongStateError:
            assert entry["status"] == "discarded"

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), what=st.sampled_from(["release", "reroute", "discard"]))
    def attend_to(self, data: st.DataObject, what: str) -> None:
        receipt = data.draw(st.sampled_from(self.receipts))
        action = jobs.Action(
            "instances", what, "spare" if what == "reroute" else "", reason="tested"
        )
        try:
            action.carry_out(receipt.receipt_id, by="test", ports=self.system.ports)
        except PermanentError:
            return

    def teardown(self) -> None:
        """Once the queue is empty: before that, what is missing may still be in it."""
        if not hasattr(self, "system"):
            return
        try:
            mend(self.system)
            self.system.pump()
            assert not self.system.bus.depth(), "the queue does not empty"
            for receipt in self.receipts:
                assert _is_accounted_for(self.system, receipt), receipt.receipt_id
        finally:
            self.running.close()
            self.folder.cleanup()


def _is_accounted_for(system: System, receipt: Receipt) -> bool:
    """Held, set aside, discarded with a reason, or each Delivery confirmed or in the log."""
    instance = system.instance(receipt)
    if instance["state"] in ("held", "quarantined"):
        return True
    if instance["state"] == "discarded":
        return bool(instance["reason"])
    for plan in instance["deliveries"]:
        delivery = system.delivery(receipt, plan["destination"])
        if delivery["state"] in ("delivered", "superseded"):
            continue
        if delivery["state"] == "discarded":
            assert delivery["reason"]
            continue
        entries = system.entries(receipt_id=receipt.receipt_id, destination=plan["destination"])
        if not any(entry["status"] in ("open", "discarded") for entry in entries):
            return False
    return bool(instance["deliveries"])


def test_whatever_happens_no_instance_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receptions, redeliveries, conflicts, policies, retries and discards in random order."""
    Life.set_home = staticmethod(monkeypatch.setenv)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
