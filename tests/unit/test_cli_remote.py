"""Every command of operations and configuration against a running server, by its URL alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from werkzeug.serving import make_server

from infra.local.cli import COMMANDS, HERE_ALONE, main
from shared.client import ApiError, ApiUnreachableError, Client, documents
from shared.errors import DestinationRefusedError
from shared.identity.settings import IdentitySettings
from shared.messages import DeliveryRequested, Receipt, Stage, Topic, encode
from shared.pipeline.admission import Admission
from shared.pipeline.exceptions import exception_from
from shared.pipeline.polling import Poller
from shared.pipeline.source_states import state_of
from shared.web.wsgi import create_app
from tests.data import build
from tests.embedded_system import System
from tests.peers import free_port
from tests.unit.destinations.scripted_http import Answer, Request, ScriptedHttp
from tests.unit.web_fakes import KEY

RULES = {"name": "main", "execution_mode": "ALL_MATCHES", "rules": []}


class Served:
    """A system, its API on a port, and what works off its queue."""

    def __init__(self, home: Path) -> None:
        self.system = System(home)
        self._stopped = threading.Event()
        app = create_app(self.system.ports, IdentitySettings(preset_key=KEY))
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, daemon=True),
            threading.Thread(target=self._work, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def receive(self, name: str, **attributes: Any) -> Receipt:
        receipt = self.system.receive(name, **attributes)
        until = threading.Event()
        while not self.system.state(receipt):
            until.wait(0.02)
        return receipt

    def has_polled(self, source: str) -> None:
        """Wait for its first poll, and let time pass: what is asked for then is another."""
        until = threading.Event()
        while not state_of(source, self.system.ports)["poll_ended_at"]:
            until.wait(0.02)
        self.system.clock.advance(1)

    def fail(self, receipt: Receipt) -> str:
        """An entry in the exception log, for a delivery that was refused."""
        raised = exception_from(
            DestinationRefusedError("primary-storage", "A900H"),
            stage=Stage.DELIVER,
            at=self.system.clock.now(),
            receipt=receipt,
            source=receipt.source,
            destination="primary-storage",
            retry_topic=Topic.DELIVERY_REQUESTED,
            retry_message=encode(DeliveryRequested(receipt, "primary-storage")),
        )
        self.system.ports.exceptions.record(raised)
        return raised.exception_id

    def close(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()

    def _work(self) -> None:
        poller = Poller(self.system.ports)
        while not self._stopped.wait(0.02):
            self.system.clock.advance(1)
            self.system.work(refused=True)
            poller.run()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served") / "home")
    yield served
    served.close()


@pytest.fixture
def api(served: Served) -> Iterator[Client]:
    with Client(served.url, KEY) as client:
        yield client


class Terminal:
    """Runs commands as somebody on another machine does: there is no AXIOM_HOME."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url, self._capsys = url, capsys

    def status(self, *words: str) -> int:
        self._capsys.readouterr()
        return main([*words, "--url", self._url])

    def json(self, *words: str, status: int = 0) -> Any:
        """The document that it prints; as a table it prints something, too."""
        found = self.status(*words, "--json")
        out, err = self._capsys.readouterr()
        assert found == status, err + out
        return json.loads(out)

    def text(self, *words: str, status: int = 0) -> str:
        found = self.status(*words)
        out, err = self._capsys.readouterr()
        assert found == status, err
        return out + err


@pytest.fixture
def there(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Terminal:
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("AXIOM_API_KEY", KEY)
    monkeypatch.setattr("infra.local.waiting._ASK_EVERY_S", 0.02)
    return Terminal(served.url, capsys)


def fits(kind: Any, found: object) -> None:
    """What the server answers is what the client says that it is."""
    msgspec.convert(found, kind)


def test_the_url_may_stand_anywhere_or_in_the_environment(
    served: Served, there: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--url", served.url, "health"]) == 0
    assert main([f"--url={served.url}", "health"]) == 0
    assert main(["health", "--url", served.url + "/"]) == 0
    monkeypatch.setenv("AXIOM_URL", served.url)
    assert main(["health"]) == 0


def test_health(there: Terminal, served: Served) -> None:
    told = there.json("health")
    assert (told["status"], told["url"]) == ("ok", served.url)
    assert told["checks"]["documents"] == "ok"
    assert "documents" in there.text("health")


def test_health_fails_and_says_why_while_senders_are_turned_away(
    there: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert there.json("health")["checks"]["reception"] == "ok"
    monkeypatch.setattr(Admission, "closed", lambda *_: ["8 MiB are free"])
    told = there.json("health", status=1)
    assert (told["status"], told["checks"]["reception"]) == ("failed", "queue: 8 MiB are free")


def test_health_tells_of_destinations_whoever_may_know(
    there: Terminal, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "destination primary-storage" in there.json("health")["checks"]
    monkeypatch.setenv("AXIOM_API_KEY", "")
    assert "destination primary-storage" not in there.json("health")["checks"]


def test_configuration_is_tried_without_a_change_and_missing_secrets_are_told(
    there: Terminal, tmp_path: Path, api: Client
) -> None:
    file = tmp_path / "site.json"
    site = {
        "crosswalk_sources": [
            {
                "name": "mpi",
                "type": "postgresql",
                "host": "db.example",
                "database": "mpi",
                "credentials": {"username": "axiom", "password_secret": "nobodys"},
            }
        ]
    }
    before = api.configuration()
    file.write_text(json.dumps(site))
    there.json("config", "apply", str(file), "--dry-run")
    file.with_name("ruleset.json").write_text(json.dumps({**RULES, "name": "tried"}))
    there.json("config", "apply", str(file.with_name("ruleset.json")), "--dry-run")
    newest = there.json("config", "versions")["versions"][0]["version"]
    there.json("config", "roll-back", str(newest), "--dry-run")
    assert api.configuration() == before
    place = "crosswalk_sources[mpi].credentials.password_secret"
    assert f"{place} names the secret nobodys" in there.text("config", "apply", str(file))
    assert list(api.missing_secrets()) == [{"path": place, "name": "nobodys"}]
    fits(list[documents.MissingSecret], list(api.missing_secrets()))
    api.apply({"crosswalk_sources": []})


def test_configuration(there: Terminal, tmp_path: Path, api: Client) -> None:
    file = tmp_path / "site.json"
    file.write_text(json.dumps({"rulesets": [RULES]}))
    there.json("config", "apply", str(file), "--reason", "für später")
    assert there.json("config", "export") == api.configuration()
    versions = there.json("config", "versions")["versions"]
    assert versions[0]["reason"] == "für später"
    fits(documents.Version, versions[0])
    newest = versions[0]["version"]
    assert there.json("config", "diff", str(newest))["to"] == newest
    assert "main" in there.text("config", "diff", str(newest))
    ruleset = tmp_path / "ruleset.json"
    for execution in ("ALL_MATCHES", "FIRST_MATCH"):
        ruleset.write_text(json.dumps({**RULES, "name": "two", "execution_mode": execution}))
        there.json("config", "apply", str(ruleset))
    assert api.entity("rulesets", "two").document["execution_mode"] == "FIRST_MATCH"
    there.json("config", "roll-back", str(newest), "--ruleset", "main")
    assert {one["name"] for one in api.entities("rulesets")} == {"main", "two"}
    rolled = there.json("config", "roll-back", str(newest))
    assert rolled["version"] > newest
    assert [one["name"] for one in api.entities("rulesets")] == ["main"]
    assert "main" in there.text("config", "export")
    file.write_text(json.dumps({"rulesets": [{"name": "x", "nope": 1}]}))
    refused = there.json("config", "apply", str(file), status=1)
    assert refused["error"]["code"] == "invalid-configuration"
    assert any("nope" in fault["path"] for fault in refused["error"]["faults"])


def test_rules(there: Terminal, served: Served, tmp_path: Path) -> None:
    file, image = tmp_path / "rules.json", tmp_path / "image.dcm"
    file.write_text(json.dumps(RULES))
    image.write_bytes(build.ct())
    receipt = served.receive("explained")
    assert there.json("rules", "validate", str(file)) == {"valid": ["main"]}
    tried = there.json("rules", "dry-run", str(file), "--dicom", str(image))
    assert tried["instances"] == 1
    assert there.json("rules", "dry-run", str(file), "--last", "5")["instances"] >= 1
    told = there.json("rules", "explain", receipt.receipt_id)
    assert told["decision"]["verdict"] == "route"
    assert "route" in there.text("rules", "explain", receipt.receipt_id)
    there.text("rules", "explain", "--dicom", str(image), status=2)


def test_destinations(there: Terminal, api: Client) -> None:
    listed = there.json("destinations", "list")["destinations"]
    assert listed[0]["destination"] == "primary-storage"
    fits(list[documents.DestinationState], listed)
    assert there.json("destinations", "show", "primary-storage")["type"] == "filesystem"
    assert "yes" in there.text("destinations", "show", "primary-storage")
    checked = there.json("destinations", "check", "primary-storage")
    fits(documents.Checked, checked)
    assert there.json("destinations", "show", "nope", status=1)["error"]["code"]


def test_sources_and_pulls(there: Terminal, served: Served, api: Client) -> None:
    def answer(request: Request) -> Answer:
        return Answer(200, b"[]", {"Content-Type": "application/dicom+json"})

    with ScriptedHttp(answer) as http:
        source = {"type": "dicomweb", "base_url": http.url, "poll_interval": "1d"}
        for name in ("pacs", "other"):
            api.create("sources", {"name": name, **source})
        listed = there.json("sources", "list")["sources"]
        assert [one["source"] for one in listed] == ["pacs", "other"]
        fits(list[documents.SourceState], listed)
        assert there.json("sources", "show", "pacs")["type"] == "dicomweb"
        fits(documents.Checked, there.json("sources", "check", "pacs"))
        served.has_polled("pacs")
        assert there.json("sources", "poll", "pacs")["found"] == 0
        there.text("sources", "poll", "pacs", "--failed", status=2)
        study = ("--source", "pacs", "--study", "1.2.3")
        done = there.json("pull", *study, status=1)
        assert (done["state"], done["unknown"]) == ("finished", 1)
        fits(documents.Pull, done)
        fits(list[documents.PullRow], done["rows"])
        left = there.json("pull", *study, "--background")
        assert left["id"] in there.text("pull", "show", left["id"])
        listed = there.json("pull", "list")["pulls"]
        assert {one["id"] for one in listed} == {done["id"], left["id"]}
        paused = served.system.ports.documents.get("jobs", done["id"])
        assert paused is not None
        data = {**paused.data, "state": "running"}
        served.system.ports.documents.put("jobs", done["id"], data)
        assert there.json("pull", "pause", done["id"])["state"] == "paused"
        assert there.json("pull", "resume", done["id"], status=1)["state"] == "finished"
        refused = there.json("pull", "--source", "nope", "--study", "1.2", status=1)["error"]
        [fault] = refused["faults"]
        assert (fault["path"], bool(fault["hint"])) == ("source", True)
    api.delete("sources", "other")
    assert api.entity("sources", "pacs").etag


def test_instances(there: Terminal, served: Served) -> None:
    receipts = [served.receive(f"listed-{n}", study="listed") for n in range(3)]
    uid = build.uid("listed")
    first = there.json("instances", "list", "--study", uid, "--limit", "2")
    fits(list[documents.Instance], first["instances"])
    rest = there.json("instances", "list", "--study", uid, "--cursor", first["next_cursor"])
    listed = [*first["instances"], *rest["instances"]]
    assert {one["receipt_id"] for one in listed} == {one.receipt_id for one in receipts}
    assert rest["next_cursor"] is None
    shown = there.json("instances", "show", build.uid("listed-1"))
    assert shown["receipt_id"] == receipts[1].receipt_id
    text = there.text("instances", "show", receipts[1].receipt_id)
    assert "primary-storage" in text
    assert shown["file"]["object_name"] in text
    assert there.json("instances", "show", "nope", status=1)["error"]["code"] == "not-found"
    there.text("instances", "list", "--cursor", "nope", status=1)


def test_an_instance_is_shown_to_who_may_not_see_what_its_values_were(
    there: Terminal, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {
        "name": "stamp",
        "conditions": [],
        "actions": [{"type": "set", "tag": "StudyID", "value": "S-77"}],
        "destinations": ["primary-storage"],
    }
    configuration = served.system.ports.configuration
    configuration.create("rulesets", {"name": "stamps", "rules": [rule]}, by="test")
    try:
        served.system.clock.advance(1)
        receipt = served.receive("stamped")
    finally:
        configuration.delete("rulesets", "stamps", by="test")
    made = there.json("keys", "create", "--user", "watcher", "--role", "viewer")
    monkeypatch.setenv("AXIOM_API_KEY", made["key"])
    shown = there.text("instances", "show", receipt.receipt_id)
    assert "(not shown)" in shown
    assert "S-77" not in shown


def test_an_instance_that_nothing_was_decided_about_is_shown_by_its_entries(
    there: Terminal, served: Served
) -> None:
    undecided = msgspec.structs.replace(served.receive("undecided"), receipt_id="r-undecided")
    entry = served.fail(undecided)
    # What is open is counted by other tests.
    served.system.ports.exceptions.archive(entry, by="test")
    shown = there.json("instances", "show", "r-undecided")
    assert shown["state"] == "undecided"
    assert [one["id"] for one in shown["exceptions"]] == [entry]
    assert "A900H" in there.text("instances", "show", "r-undecided")


def test_instances_that_wait(there: Terminal, served: Served) -> None:
    held = [served.receive(f"held-{n}", study="held") for n in range(4)]
    for one in held:
        found = served.system.ports.documents.get("instances", one.receipt_id)
        assert found is not None
        data = {**found.data, "state": "held", "deliveries": []}
        served.system.ports.documents.put("instances", one.receipt_id, data)
    ids = [one.receipt_id for one in held]
    assert there.json("instances", "release", ids[0])["results"][0]["result"] == "released"
    to = ("--destination", "primary-storage")
    assert there.json("instances", "reroute", ids[1], *to)["results"][0]["result"] == "rerouted"
    [failed] = there.json("instances", "discard", "nope", "--reason", "r", status=1)["results"]
    assert failed["result"] == "failed"
    chosen = ("--filter", f"study_uid={build.uid('held')}", "--filter", "state=held")
    counted = there.json("instances", "discard", *chosen, "--reason", "r", "--dry-run")
    assert counted["count"] == 2
    job = there.json("instances", "discard", *chosen, "--reason", "no more")
    assert (job["done"], job["state"]) == (2, "finished")
    fits(documents.Job, job)


def test_exceptions(there: Terminal, served: Served) -> None:
    receipt = served.receive("failed")
    ids = [served.fail(receipt) for _ in range(2)]
    served.system.clock.advance(60)
    ids.append(served.fail(served.receive("failed-too")))
    listed = there.json("exceptions", "list", "--search", "a900h", "--limit", "1")
    assert listed["more"]
    fits(documents.ExceptionEntry, {"can_retry": True, **listed["exceptions"][0]})
    rest = there.json("exceptions", "list", "--cursor", listed["next_cursor"], "--search", "a900h")
    assert {ids[0], ids[-1]} == {e["id"] for e in [*listed["exceptions"], *rest["exceptions"]]}
    shown = there.json("exceptions", "show", ids[0])
    assert shown["can_be_retried"]
    assert there.json("exceptions", "retry", ids[0])["results"][0]["result"] == "retried"
    assert there.json("exceptions", "archive", "--all", "--dry-run")["count"] >= 1
    assert there.json("exceptions", "archive", "--all")["state"] == "finished"
    assert there.json("exceptions", "discard", "nope", "--reason", "r", status=1)


def test_studies(there: Terminal, served: Served) -> None:
    assert there.json("studies", "list")["studies"] == []
    # Whoever has just sent one would think it lost.
    assert "`axiom instances list` shows" in there.text("studies", "list")
    assert there.json("studies", "show", "1.2.3", status=1)["error"]["code"] == "document-missing"
    receipt = served.receive("ct-of-a-study")
    shown = there.json("studies", "show", receipt.study_instance_uid)
    fits(documents.Study, shown)
    fits(list[documents.FollowedInstance], shown["timelines"])
    assert receipt.receipt_id in [one["receipt_id"] for one in shown["timelines"]]
    assert "received" in there.text("studies", "show", receipt.study_instance_uid)
    assert there.json("studies", "complete", "1.2.3", status=1)["error"]["code"]


def test_reconcile(there: Terminal, served: Served) -> None:
    # What other tests had refused is theirs.
    since = served.system.clock.now().isoformat()
    served.receive("reconciled")
    found = there.json("reconcile", "--destination", "primary-storage", "--since", since)
    assert found["missing"] == 0
    fits(documents.Reconciliation, found)


def test_crosswalk(there: Terminal, served: Served, tmp_path: Path, api: Client) -> None:
    assert there.json("crosswalk", "status") == []
    assert there.json("crosswalk", "sync", status=1)["error"]["code"] == "nothing-to-do"
    assert there.json("crosswalk", "lookup", "nope", "a=b", status=1)["error"]["code"]


def test_standardize(there: Terminal) -> None:
    assert there.json("standardize", "reviews") == []
    assert there.json("standardize", "synonyms") == []
    assert there.json("standardize", "report")["series"] == []
    for action in ("show", "approve", "reject", "revert", "ask-again", "forget"):
        refused = there.json("standardize", action, "nope", status=1)["error"]
        assert refused["code"] == "document-missing", action
    there.json("standardize", "correct", "nope", "CHEST", status=1)


def test_keys(there: Terminal, served: Served) -> None:
    made = there.json("keys", "create", "--user", "ct-1", "--role", "uploader", "--days", "3")
    fits(documents.NewKey, made)
    [key] = there.json("keys", "list", "--user", "ct-1")["keys"]
    fits(documents.ApiKey, key)
    assert key["id"] == made["id"]
    assert "uploader" in there.text("keys", "list")
    again = there.json("keys", "rotate", made["id"])
    assert there.json("keys", "revoke", again["id"]) == {"revoked": [again["id"]]}
    assert there.json("keys", "revoke", "nope", status=1)["error"]["code"] == "no-key"
    assert there.json("keys", "create", "--user", "x", status=1)["error"]["code"] == "no-user"


@pytest.mark.parametrize("name", sorted(HERE_ALONE))
def test_what_works_here_alone_does_not_start_for_a_system_elsewhere(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--url", "http://127.0.0.1:9"]) == 2
    assert "works here alone" in capsys.readouterr().err


def test_no_command_looks_into_a_home_where_a_url_is_named(there: Terminal) -> None:
    """Whoever means another system must not change this one."""
    assert set(COMMANDS) >= HERE_ALONE
    file = Path(__file__).parent / "no-such.csv"
    refused = there.json("standardize", "evaluate", "--provider", "one", __file__, status=1)
    assert refused["error"]["code"] in ("not-remote", "bad-file"), file


class TestClient:
    def test_refusals_are_told_with_code_and_faults(self, api: Client, served: Served) -> None:
        with pytest.raises(ApiError) as refused:
            api.create("destinations", {"name": "x y", "type": "nope"})
        assert (refused.value.status, refused.value.code) == (422, "invalid-configuration")
        assert refused.value.faults
        with Client(served.url, "wrong") as stranger, pytest.raises(ApiError) as unknown:
            stranger.configuration()
        assert unknown.value.code == "unauthenticated"

    def test_a_lost_update_is_refused(self, api: Client) -> None:
        known = api.entity("destinations", "primary-storage")
        api.patch("destinations", "primary-storage", {"timeout_s": 61}, etag=known.etag)
        with pytest.raises(ApiError) as late:
            api.patch("destinations", "primary-storage", {"timeout_s": 62}, etag=known.etag)
        assert late.value.code == "document-changed"

    def test_lists_are_read_page_by_page(self, api: Client) -> None:
        pages = api.pages("/config/versions", {"limit": 1})
        versions = [one["version"] for one in pages]
        assert versions == sorted(versions, reverse=True)
        assert len(versions) > 1

    def test_a_search_comes_line_by_line(self, api: Client) -> None:
        *_, summary = api.browse({"sources": ["@received"], "filters": {"PatientID": "nobody"}})
        assert summary["type"] == "summary"

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(200, b"<html>log in", {"Content-Type": "text/html"}),
            Answer(302, b"", {"Location": "http://127.0.0.1:9/login"}),
            Answer(200, b"{", {"Content-Type": "application/json"}),
            Answer(500, b'{"code": 5}', {"Content-Type": "application/json"}),
        ],
    )
    def test_what_is_no_api_is_told(self, answer: Answer) -> None:
        with (
            ScriptedHttp(lambda _: answer) as http,
            Client(http.url, "secret") as client,
            pytest.raises(ApiError) as found,
        ):
            client.configuration()
        assert found.value.code == "no-api"
        assert "secret" not in str(found.value)

    def test_googles_proxies_are_shown_who_asks_beside_the_key(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Cloud Run refuses whoever it does not know before the API is asked."""

        def cloud_run(request: Request) -> Answer:
            if request.headers.get("X-Serverless-Authorization") != "Bearer who-i-am":
                return Answer(403, b"<html>Forbidden", {"Content-Type": "text/html"})
            assert request.headers["Authorization"] == f"Bearer {KEY}"
            assert request.headers["Proxy-Authorization"] == "Bearer who-i-am"
            return Answer(200, b'{"destinations": []}', {"Content-Type": "application/json"})

        monkeypatch.setenv("AXIOM_API_KEY", KEY)
        with ScriptedHttp(cloud_run) as http:
            assert main(["--url", http.url, "config", "export"]) == 1
            assert "AXIOM_IDENTITY_TOKEN" in capsys.readouterr().err
            monkeypatch.setenv("AXIOM_IDENTITY_TOKEN", "who-i-am")
            assert main(["--url", http.url, "config", "export"]) == 0

    def test_whoever_cannot_be_asked_is_named(self) -> None:
        with (
            Client(f"http://127.0.0.1:{free_port()}/api/v1", "secret") as client,
            pytest.raises(ApiUnreachableError) as found,
        ):
            client.configuration()
        assert str(found.value) == f"{client.url}: no connection, or one that broke off"

    def test_nobody_answers(self) -> None:
        with (
            ScriptedHttp(lambda _: Answer(None)) as http,
            Client(http.url, "secret") as client,
            pytest.raises(ApiUnreachableError) as found,
        ):
            client.configuration()
        assert "secret" not in str(found.value)

    @pytest.mark.parametrize("url", ["axiom", "ftp://axiom", "http://user:word@axiom", "http://"])
    def test_what_is_no_url_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="URL"):
            Client(url)
