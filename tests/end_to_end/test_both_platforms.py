"""What the product does, seen from outside: the same on one machine and in the rehearsed cloud; and
what is done to the cloud alone, which is started once for all of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml

from infra.cost.counts import Counts
from infra.local.rehearse.counting import KINDS, count
from infra.local.rehearse.run import Plan, check_tools, drive, timers
from infra.local.rehearse.system import System, running_system
from infra.local.terminal import CommandFailedError
from shared.dicom.validation import DEFAULT_SEVERITIES
from tests.asking_modality import asking_modality
from tests.conftest import ROOT
from tests.data import build
from tests.google.healthcare import healthcare
from tests.platforms import Cloud, Embedded, Platform, c_store, fresh, stow
from tests.running import RunningAxiom, wait_until

COOKBOOK = ROOT / "docs" / "rules"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The rehearsed cloud; whatever others have done to it stays done."""
    try:
        check_tools()
    except CommandFailedError as error:
        pytest.skip(str(error))
    with running_system(tmp_path_factory.mktemp("rehearsed"), lambda text: None) as system:
        yield system


@pytest.fixture(
    scope="module", params=["embedded", pytest.param("cloud", marks=pytest.mark.rehearsal)]
)
def platform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """Each in turn, running."""
    if request.param == "embedded":
        with RunningAxiom(tmp_path_factory.mktemp("platform") / "home") as running:
            yield Embedded(running)
        return
    system = request.getfixturevalue("rehearsed")
    with timers(system):
        yield Cloud(system)


def configure(platform: Platform, *keepers: str, **parts: Any) -> None:
    """Destinations that keep, the first of which is the default."""
    settings = {"default_route": [keepers[0]], "min_free_bytes": 0, **parts.pop("settings", {})}
    destinations = [
        *(platform.keeper(name) for name in keepers),
        *parts.pop("destinations", ()),
    ]
    empty: dict[str, Any] = {
        part: [] for part in ("rulesets", "standardizers", "sources", "listeners")
    }
    platform.configure(**{**empty, "destinations": destinations, "settings": settings, **parts})


def ct(name: str, study: str = "", **changes: str) -> bytes:
    """A CT with these UIDs, and Attributes by keyword."""
    encoded = {
        int(tag := pydicom.datadict.tag_for_keyword(keyword) or 0): build.element(
            tag, pydicom.datadict.dictionary_VR(tag), value
        )
        for keyword, value in changes.items()
    }
    return build.ct(instance=name, study=study or name, changes=encoded)


def instances(platform: Platform, name: str, **query: str) -> list[dict[str, Any]]:
    """What is known of the Instances of that name."""
    uid = build.uid(name)
    found = platform.get_all("/api/v1/instances", **query)
    return [one for one in found if one["sop_instance_uid"] == uid]


def entries(platform: Platform, name: str) -> list[dict[str, Any]]:
    """The exception log about the Instance of that name."""
    found = platform.get_all("/api/v1/exceptions")
    return [one for one in found if one["sop_instance_uid"] == build.uid(name)]


def test_what_is_received_over_both_protocols_is_delivered_as_rules_say(
    platform: Platform,
) -> None:
    store, other, name = fresh("store"), fresh("other"), fresh("way")
    rule = {
        "name": "head",
        "conditions": [{"BodyPartExamined": "HEAD"}],
        "destinations": [other],
        "actions": [{"type": "set", "tag": "StationName", "value": "CHANGED"}],
    }
    configure(platform, store, other, rulesets=[{"name": "ways", "rules": [rule]}])
    assert c_store(platform, ct(f"{name}-1")) == 0x0000
    assert stow(platform, ct(f"{name}-2", BodyPartExamined="HEAD")).status_code == 200
    first, second = build.uid(f"{name}-1"), build.uid(f"{name}-2")
    wait_until(lambda: first in platform.kept(store), what="the default route")
    wait_until(lambda: second in platform.kept(other), what="the rule's route")
    assert pydicom.dcmread(io.BytesIO(platform.kept(other)[second])).StationName == "CHANGED"
    assert (set(platform.kept(store)), set(platform.kept(other))) == ({first}, {second})


def test_a_rule_at_reception_refuses_over_both_protocols(platform: Platform) -> None:
    store, name = fresh("store"), fresh("refused")
    ruleset = yaml.safe_load((COOKBOOK / "R12-refuse-at-reception.yaml").read_text())
    configure(platform, store, rulesets=[ruleset])
    assert c_store(platform, ct(f"{name}-1")) == 0x0124
    assert c_store(platform, build.mr(instance=f"{name}-3")) == 0x0000
    refused = stow(platform, ct(f"{name}-2"))
    assert refused.status_code == 409
    (failed,) = refused.json()["00081198"]["Value"]
    assert failed["00081197"]["Value"] == [0x0124]
    assert stow(platform, build.mr(instance=f"{name}-4")).status_code == 200
    (entry,) = wait_until(lambda: entries(platform, f"{name}-2"), what="its entry")
    assert entry["code"] == "refused-by-rule"
    both = {build.uid(f"{name}-3"), build.uid(f"{name}-4")}
    wait_until(lambda: set(platform.kept(store)) == both, what="both to arrive")


def test_a_shadow_reports_and_an_instance_is_explained(platform: Platform) -> None:
    store, name, live, next_ = fresh("store"), fresh("shadowed"), fresh("main"), fresh("next")
    rulesets = [
        {"name": live, "rules": [{"name": "all", "destinations": [store]}]},
        {
            "name": next_,
            "mode": "shadow",
            "replaces": live,
            "rules": [{"name": "mr", "conditions": ['Modality == "MR"'], "destinations": [store]}],
        },
    ]
    configure(platform, store, rulesets=rulesets)
    assert stow(platform, ct(name)).status_code == 200
    (instance,) = wait_until(lambda: instances(platform, name), what="the rules to count")
    assert instance["matched_rules"] == [f"{live}/all"]

    def counted() -> Any:
        path = f"/api/v1/config/rulesets/{next_}/shadow-report"
        report = platform.request("GET", path).json()
        return report if report.get("instances") else None

    report = wait_until(counted, what="the shadow to be counted")
    assert report["different"] == report["instances"]
    path = f"/api/v1/instances/{instance['receipt_id']}/explain"
    assert platform.request("GET", path).json()["rules"][0]["matched"] is True


def test_a_study_is_sent_by_one_rule_and_waits_for_another(platform: Platform) -> None:
    store, quiet, by_hand = fresh("store"), fresh("quiet"), fresh("by-hand")
    rules = [
        {
            "name": name,
            "level": "study",
            "completion": {"quiet_period_s": quiet_period_s},
            "conditions": [{"StudyDescription": name.upper()}],
            "destinations": [name],
        }
        for name, quiet_period_s in ((quiet, 1), (by_hand, 86400))
    ]
    configure(platform, store, quiet, by_hand, rulesets=[{"name": "studies", "rules": rules}])
    for name in (quiet, by_hand):
        sent = [ct(f"{name}-{n}", name, StudyDescription=name.upper()) for n in range(2)]
        assert stow(platform, *sent).status_code == 200
    wait_until(lambda: len(platform.kept(quiet)) == 2, what="the quiet study")
    (instance,) = instances(platform, f"{quiet}-0")
    told = platform.request("GET", f"/api/v1/instances/{instance['receipt_id']}/explain").json()
    assert {one["rule"]: one["reason"] for one in told["rules"]} == {
        f"studies/{quiet}": "matched",
        f"studies/{by_hand}": "waits for the study to be complete",
    }
    uid = build.uid(by_hand)

    def waiting() -> set[str]:
        found = platform.get_all("/api/v1/studies", study_uid=uid)
        return {one["state"] for one in found if one["rule"] == f"studies/{by_hand}"}

    wait_until(lambda: waiting() == {"collecting"}, what="the other to be collected")
    assert platform.kept(by_hand) == {}
    assert platform.request("POST", f"/api/v1/studies/{uid}/complete").status_code == 202
    wait_until(lambda: len(platform.kept(by_hand)) == 2, what="the study completed by hand")
    assert platform.kept(store) == {}


def test_equal_bytes_come_once_and_others_wait_for_a_person(platform: Platform) -> None:
    store, other, name = fresh("store"), fresh("other"), fresh("twice")
    keeper = platform.keeper(store, on_conflict="quarantine")
    configure(platform, other, destinations=[keeper], settings={"default_route": [store]})
    uid, bytes_ = build.uid(name), ct(name)
    assert stow(platform, bytes_).status_code == 200
    wait_until(lambda: uid in platform.kept(store), what="the first")
    assert stow(platform, bytes_).status_code == 200

    def delivered() -> int:
        found = platform.get_all("/api/v1/deliveries", study_uid=uid, state="delivered")
        return len(found)

    wait_until(lambda: delivered() == 2, what="both deliveries")
    assert platform.kept(store) == {uid: bytes_}
    assert stow(platform, ct(name, StationName="ANOTHER")).status_code == 200
    (aside,) = wait_until(
        lambda: instances(platform, name, state="quarantined"), what="the other bytes"
    )
    answer = platform.request(
        "POST", f"/api/v1/instances/{aside['receipt_id']}/reroute", json={"destination": other}
    )
    assert answer.status_code < 300, answer.text
    wait_until(lambda: uid in platform.kept(other), what="where a person sends it")
    assert platform.kept(store) == {uid: bytes_}


def test_what_is_held_waits_for_its_release(platform: Platform) -> None:
    store, name = fresh("store"), fresh("held")
    rule = {"name": "all", "actions": [{"type": "hold", "reason": "a person looks at it first"}]}
    configure(platform, store, rulesets=[{"name": "holding", "rules": [rule]}])
    assert c_store(platform, ct(name)) == 0x0000
    assert stow(platform, ct(f"{name}-2", name), ct(f"{name}-3", name)).status_code == 200

    def held() -> list[dict[str, Any]]:
        return platform.get_all("/api/v1/instances", state="held", study_uid=build.uid(name))

    wait_until(lambda: len(held()) == 3, what="the hold")
    assert platform.kept(store) == {}
    configure(platform, store)
    (first,) = instances(platform, name)
    answer = platform.request("POST", f"/api/v1/instances/{first['receipt_id']}/release", json={})
    assert answer.status_code < 300, answer.text
    wait_until(lambda: set(platform.kept(store)) == {build.uid(name)}, what="what was released")
    others = {"action": "release", "filter": {"study_uid": build.uid(name), "state": "held"}}
    job = platform.request("POST", "/api/v1/instances/bulk", json=others)
    assert job.status_code == 202, job.text
    wait_until(lambda: len(platform.kept(store)) == 3, what="what a job releases")


def test_a_modality_is_told_that_its_instances_are_safe(platform: Platform) -> None:
    store, name = fresh("store"), fresh("committed")
    with asking_modality() as modality:
        configure(platform, store, listeners=[modality.listener])
        sent = {build.uid(f"{name}-{n}"): ct(f"{name}-{n}") for n in range(2)}
        modality.store_and_ask(platform.dimse_port, list(sent.values()))
        report = modality.reports.get(timeout=240)
    assert {one.ReferencedSOPInstanceUID for one in report.ReferencedSOPSequence} == set(sent)
    assert "FailedSOPSequence" not in report
    assert set(platform.kept(store)) == set(sent)


def test_what_a_destination_refuses_is_retried_by_a_person(platform: Platform) -> None:
    store, name = fresh("store"), fresh("refused")
    with healthcare() as peer:
        destination = {
            "name": fresh("peer"),
            "type": "dicomweb",
            "base_url": peer.dicomweb_url,
        }
        route = {"default_route": [destination["name"]]}
        configure(platform, store, destinations=[destination], settings=route)
        peer.answer_next(400)
        assert stow(platform, ct(name)).status_code == 200
        (entry,) = wait_until(lambda: entries(platform, name), what="its entry")
        assert (entry["code"], entry["destination"]) == ("destination-refused", destination["name"])
        path = f"/api/v1/exceptions/{entry['id']}/retry"
        assert platform.request("POST", path, json={}).status_code < 300
        wait_until(lambda: peer.get(build.uid(name)), what="the retry")
    assert [one["status"] for one in entries(platform, name)] == ["retried"]


def test_attributes_are_standardized_on_the_way(platform: Platform) -> None:
    store, name = fresh("store"), fresh("terms")
    standardizer = {
        "name": "body-parts",
        "attributes": ["BodyPartExamined"],
        "providers": [{"type": "embedded"}],
    }
    rule = {"name": "all", "actions": [{"type": "standardize", "standardizer": "body-parts"}]}
    configure(
        platform,
        store,
        standardizers=[standardizer],
        rulesets=[{"name": "terms", "execution_mode": "ALL_MATCHES", "rules": [rule]}],
        settings={"validation": dict.fromkeys(DEFAULT_SEVERITIES, "ignore")},
    )
    assert stow(platform, ct(name, BodyPartExamined="BWS")).status_code == 200
    uid = build.uid(name)
    wait_until(lambda: uid in platform.kept(store), what="the Instance")
    found = pydicom.dcmread(io.BytesIO(platform.kept(store)[uid]))
    assert found.BodyPartExamined == "TSPINE"
    assert found.OriginalAttributesSequence


def test_the_data_browser_finds_what_was_received(platform: Platform) -> None:
    store, name = fresh("store"), fresh("browsed")
    configure(platform, store)
    assert stow(platform, ct(name, PatientID="B-0815")).status_code == 200
    wait_until(lambda: instances(platform, name), what="the decision")
    found = platform.request(
        "POST",
        "/api/v1/data-browser/query",
        headers={"Accept": "application/json"},
        json={
            "sources": ["@received"],
            "filters": {"StudyInstanceUID": build.uid(name), "PatientID": "B-08*"},
        },
    )
    [study] = found.json()["items"]
    assert study["attributes"]["NumberOfStudyRelatedInstances"] == 1


def test_stow_says_of_each_instance_what_became_of_it(platform: Platform) -> None:
    store, name = fresh("store"), fresh("stowed")
    configure(platform, store)
    mixed = stow(platform, ct(name), build.text_file())
    assert mixed.status_code in (202, 409)
    (stored,) = mixed.json()["00081199"]["Value"]
    assert stored["00081155"]["Value"] == [build.uid(name)]
    assert len(mixed.json()["0008119A"]["Value"]) == 1  # what cannot be told by its UIDs
    elsewhere = stow(platform, ct(f"{name}-2"), study="1.2.3")
    assert elsewhere.status_code == 409
    assert stow(platform, ct(name), Authorization="Api-Key nobody-knows-it").status_code == 401
    wait_until(lambda: set(platform.kept(store)) == {build.uid(name)}, what="the good one")


def test_a_configuration_is_changed_by_one_at_a_time(platform: Platform) -> None:
    store, added = fresh("store"), fresh("added")
    configure(platform, store)
    path = "/api/v1/config/destinations"
    made = platform.request("POST", path, json=platform.keeper(added))
    assert made.status_code == 201, made.text
    etag = platform.request("GET", f"{path}/{added}").headers["ETag"]

    def patch(timeout_s: float, etag: str, **query: str) -> int:
        headers = {"Content-Type": "application/merge-patch+json", "If-Match": etag}
        answer = platform.request(
            "PATCH", f"{path}/{added}", json={"timeout_s": timeout_s}, headers=headers, params=query
        )
        return answer.status_code

    assert patch(1000, etag, dry_run="true") == 200
    assert patch(30, etag) == 200
    assert patch(20, etag) == 412
    assert platform.request("GET", f"{path}/{added}").json()["timeout_s"] == 30
    assert platform.request("PUT", "/api/v1/config", json={"destinations": {}}).status_code == 422


def test_a_viewer_looks_and_changes_nothing(platform: Platform) -> None:
    store, user = fresh("store"), fresh("viewer")
    configure(platform, store)
    made = platform.request("POST", "/api/v1/users", json={"name": user, "roles": ["viewer"]})
    assert made.status_code == 201, made.text
    key = platform.request("POST", f"/api/v1/users/{user}/keys", json={"label": "test"}).json()
    as_viewer = {"Authorization": f"Api-Key {key['key']}"}

    def seen() -> int:
        return platform.request("GET", "/api/v1/deliveries", headers=as_viewer).status_code

    wait_until(lambda: seen() == 200, what="the key to count")
    changed = platform.request("PUT", "/api/v1/config", json={"rulesets": []}, headers=as_viewer)
    assert changed.status_code == 403
    assert stow(platform, ct(fresh("viewed")), **as_viewer).status_code == 403
    revoked = platform.request("DELETE", f"/api/v1/users/{user}/keys/{key['id']}")
    assert revoked.status_code < 300, revoked.text
    wait_until(lambda: seen() == 401, what="the key to end")


@pytest.mark.rehearsal
def test_nothing_is_lost_whoever_dies_lies_or_is_silent(rehearsed: System, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = drive(rehearsed, tmp_path, Plan(instances=16, kills=2), said.append)
    failed = [claim for claim in outcome.claims if not claim.holds]
    assert (list(outcome.lost), failed) == ([], []), rehearsed.logs()


@pytest.mark.rehearsal
def test_an_instance_asks_of_google_what_the_costs_are_made_of(rehearsed: System) -> None:
    """Else: python -m infra.cost count."""
    counted, known = count(rehearsed, 20), Counts.read().stages
    assert set(counted) == set(known)
    for stage, found in counted.items():
        for kind in KINDS:
            # Headers differ in length, and a clean-up asks some things once for all.
            near = pytest.approx(known[stage].get(kind, 0.0), rel=0.1, abs=0.2)
            assert found[kind] == near, (stage, kind)
