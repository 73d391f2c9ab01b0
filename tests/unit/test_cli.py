"""The command line: help that costs nothing, errors that help, JSON that a program can read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from infra.local.addresses import Addresses
from infra.local.cli import COMMANDS, main
from infra.local.options import open_ports
from infra.local.terminal import Terminal
from shared.errors import Fault, InvalidConfigurationError, ObjectMissingError
from shared.messages import Stage, Topic
from shared.pipeline.admission import Admission
from shared.pipeline.destination_states import OPEN, Health, record
from shared.pipeline.exceptions import exception_from
from shared.pipeline.rulebook import RuleBook

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the home of whoever runs it."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path / "home"))
    from shared import bootstrap

    bootstrap.from_environment.cache_clear()
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Standard output must be one JSON document, whatever happens."""
    status, out, _ = run(capsys, *words, "--json")
    return status, json.loads(out)


def test_help_and_version_import_nothing_heavy() -> None:
    """They are what a person tries first; they are slow only if something is imported."""
    code = (
        "import sys\nfrom infra.local.cli import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "heavy = {'rich', 'pydantic', 'pydicom', 'flask', 'shared'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, name, "--help")
    assert status == 0
    assert "Usage: axiom" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    import importlib

    import click

    command = importlib.import_module(f"infra.local.commands.{name}").command
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        assert "as_json" in {option.name for option in leaf.params}, leaf.name


def test_a_mistyped_command_is_usage_and_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "exeptions", "list")
    assert (status, out) == (2, "")
    assert "Did you mean 'exceptions'?" in err


def test_usage_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, document = run_json(capsys, "send")
    assert status == 2
    assert document["error"]["code"] == "usage"


def test_a_bug_is_json_too_and_looks_like_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text stays out of the document: it may hold what it fell over."""
    from infra.local.commands import health

    def fall_over() -> None:
        raise KeyError("CANARY")

    monkeypatch.setattr(health, "read_environment", fall_over)
    with pytest.raises(KeyError):
        main(["health", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["message"]) == ("bug", "KeyError")


def test_a_home_that_is_not_there_is_not_made_by_looking(
    capsys: pytest.CaptureFixture[str], home_of_its_own: Path
) -> None:
    status, _, err = run(capsys, "exceptions", "list")
    assert status == 1
    assert "AXIOM_HOME" in err
    assert not home_of_its_own.exists()


def test_a_bad_setting_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXIOM_HTTP_PORT", "eighty")
    status, document = run_json(capsys, "exceptions", "list")
    assert status == 1
    assert "AXIOM_HTTP_PORT" in document["error"]["message"]


@pytest.mark.parametrize("ae_title", ["SEVENTEEN_LETTERS", "A\\B", "GERÄT", " "])
def test_an_ae_title_that_cannot_be_one_is_a_bad_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ae_title: str
) -> None:
    """Found before any part starts, which would end with a traceback."""
    monkeypatch.setenv("AXIOM_AE_TITLE", ae_title)
    status, document = run_json(capsys, "up")
    assert (status, document["error"]["code"]) == (1, "bad-setting")
    assert "AXIOM_AE_TITLE" in document["error"]["message"]


@pytest.mark.parametrize("option", ["--called-ae", "--calling-ae"])
def test_send_does_not_shorten_an_ae_title(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
) -> None:
    """It would name another Application Entity."""
    status, document = run_json(capsys, "send", str(tmp_path), option, "SEVENTEEN_LETTERS")
    assert (status, document["error"]["code"]) == (2, "usage")
    assert "16" in document["error"]["message"]


def test_send_needs_a_port_that_somebody_listens_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """AXIOM_DIMSE_PORT 0 means any: which one it became, only a running system tells."""
    monkeypatch.setenv("AXIOM_DIMSE_PORT", "0")
    status, document = run_json(capsys, "send", str(tmp_path))
    assert (status, document["error"]["code"]) == (1, "not-running")


@pytest.mark.parametrize("words", [("show", "nope"), ("retry", "nope"), ("archive", "nope")])
def test_an_exception_that_is_not_there_is_said_in_the_words_of_the_command(
    capsys: pytest.CaptureFixture[str], home_of_its_own: Path, words: tuple[str, ...]
) -> None:
    home_of_its_own.mkdir()
    status, out, err = run(capsys, "exceptions", *words)
    assert status == 1
    assert "there is no exception nope" in out + err


def test_an_admin_key_is_made_only_when_it_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C before all parts work: the next start must still have one to show."""
    from infra.local.commands import up

    class InterruptedSupervisor:
        def __init__(self, environment: object, **_: object) -> None: ...

        def start(self) -> None: ...

        def wait_until_ready(self, wanted: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        def run(self, wanted: object) -> None: ...

        def stop(self, **_: object) -> None: ...

    monkeypatch.setattr(up, "Supervisor", InterruptedSupervisor)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        status, _, _ = run(capsys, "up")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert status == 0
    assert up.first_admin_key(Path(os.environ["AXIOM_HOME"])) is not None


def test_health_of_a_system_that_does_not_run_fails(capsys: pytest.CaptureFixture[str]) -> None:
    status, document = run_json(capsys, "health")
    assert (status, document["error"]["code"]) == (1, "not-running")


def test_health_fails_and_says_why_while_senders_are_turned_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home_of_its_own: Path
) -> None:
    from infra.local.commands import health

    home_of_its_own.mkdir()
    running = Addresses(str(home_of_its_own), 1, "localhost", 8080, "localhost", 11112, "AXIOM", ())
    monkeypatch.setattr(health, "read_addresses", lambda _: running)
    monkeypatch.setattr(Admission, "closed", lambda *_: ["8 MiB are free"])
    status, document = run_json(capsys, "health")
    assert (status, document["checks"]["reception"]) == (1, "8 MiB are free")


def test_health_fails_and_says_why_where_the_stored_rules_are_wrong_by_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home_of_its_own: Path
) -> None:
    """Nothing is decided about any Instance then, and nobody need have changed a thing."""
    from infra.local.commands import health

    def program(_: RuleBook) -> None:
        raise InvalidConfigurationError(Fault("rules[0].actions[0].tag", "is wrong by now"))

    home_of_its_own.mkdir()
    running = Addresses(str(home_of_its_own), 1, "localhost", 8080, "localhost", 11112, "AXIOM", ())
    monkeypatch.setattr(health, "read_addresses", lambda _: running)
    status, document = run_json(capsys, "health")
    assert (status, document["checks"]["rules"]) == (0, "ok")
    monkeypatch.setattr(RuleBook, "program", program)
    status, document = run_json(capsys, "health")
    assert (status, "is wrong by now" in document["checks"]["rules"]) == (1, True)


def test_health_fails_and_says_why_where_a_worklist_cannot_be_shown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    home_of_its_own: Path,
    tmp_path: Path,
) -> None:
    from infra.local.commands import health

    site = tmp_path / "site.yaml"
    site.write_text(
        "worklists: [{name: ris, type: folder, path: nowhere}]\n"
        "listeners: [{name: modalities, port: 11118, worklist: ris}]\n"
    )
    assert run_json(capsys, "config", "apply", str(site))[0] == 0
    running = Addresses(str(home_of_its_own), 1, "localhost", 8080, "localhost", 11112, "AXIOM", ())
    monkeypatch.setattr(health, "read_addresses", lambda _: running)
    status, document = run_json(capsys, "health")
    assert (status, "its folder is not there" in document["checks"]["worklist ris"]) == (1, True)


def test_health_fails_and_says_why_while_a_destination_takes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home_of_its_own: Path
) -> None:
    from infra.local.commands import health

    home_of_its_own.mkdir()
    ports = open_ports()
    running = Addresses(str(home_of_its_own), 1, "localhost", 8080, "localhost", 11112, "AXIOM", ())
    monkeypatch.setattr(health, "read_addresses", lambda _: running)
    status, document = run_json(capsys, "health")
    assert (status, document["checks"]["destination primary-storage"]) == (0, "ok")
    refuses = Health("primary-storage", OPEN, 5, ports.clock.now(), "401: who are you?", 60.0)
    record(refuses, ports.documents, ports.clock)
    status, document = run_json(capsys, "health")
    said = document["checks"]["destination primary-storage"]
    assert (status, said) == (1, "5 failures in a row, the last: 401: who are you?")


PACS = """
sources:
- {name: web, type: dicomweb, base_url: "https://pacs.example/dicom-web",
   auth_type: bearer_token, credentials: {token_secret: nobodys}}
"""


def test_config_apply_warns_of_a_secret_that_is_named_and_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Else it is seen first when the source is polled, at night."""
    site = tmp_path / "site.yaml"
    site.write_text(PACS)
    warning = "sources[web].credentials.token_secret names the secret nobodys, which is not there"
    status, out, _ = run(capsys, "config", "apply", str(site))
    assert (status, warning in out) == (0, True)
    status, document = run_json(capsys, "config", "apply", str(site))
    assert (status, document["sources"][0]["name"]) == (0, "web")
    open_ports().secrets.put("nobodys", "known now")
    status, out, _ = run(capsys, "config", "apply", str(site))
    assert (status, "nobodys, which" in out) == (0, False)


def test_config_apply_and_roll_back_change_nothing_in_a_dry_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site, ruleset = tmp_path / "site.yaml", tmp_path / "ruleset.yaml"
    primary = "{name: primary-storage, type: filesystem, path: primary-storage}"
    archive = "{name: archive, type: filesystem, path: archive}"
    site.write_text(f"destinations: [{primary}, {archive}]\n")
    ruleset.write_text("name: night\nrules: []\n")
    assert run_json(capsys, "config", "apply", str(site))[0] == 0
    _, before = run_json(capsys, "config", "versions")
    site.write_text(f"destinations: [{primary}]\n")
    assert "would be" in run(capsys, "config", "apply", str(site), "--dry-run")[1]
    assert run_json(capsys, "config", "apply", str(ruleset), "--dry-run")[0] == 0
    assert run_json(capsys, "config", "roll-back", "1", "--dry-run")[0] == 0
    assert run_json(capsys, "config", "versions")[1] == before


def test_what_config_apply_stores_config_export_shows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "destinations: [{name: archive, type: filesystem, path: archive}]\n"
        "settings: {default_route: [archive]}\n"
    )
    status, applied = run_json(capsys, "config", "apply", str(site))
    assert status == 0
    status, text, _ = run(capsys, "config", "export")
    assert status == 0
    site.write_text(text)
    assert run_json(capsys, "config", "apply", str(site)) == (0, applied)
    assert run_json(capsys, "config", "export") == (0, applied)


def test_config_apply_names_what_a_file_took_away(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site, one = tmp_path / "site.yaml", tmp_path / "one.yaml"
    rules = "rules: [{name: any, destinations: [archive]}]"
    destination = "destinations: [{name: archive, type: filesystem, path: archive}]\n"
    site.write_text(
        destination + f"rulesets: [{{name: first, {rules}}}, {{name: second, {rules}}}]\n"
        "settings: {default_route: [archive], max_queue_age_s: 60}\n"
    )
    run(capsys, "config", "apply", str(site))
    site.write_text(f"rulesets: [{{name: second, {rules}}}]\nsettings: {{}}\n")
    _, out, _ = run(capsys, "config", "apply", str(site))
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert rows["rulesets"].split()[1:] == ["second", "first"]
    assert "max_queue_age_s" in rows["settings"]
    assert rows["destinations"].split()[1:] == ["archive"]

    one.write_text(f"name: third\n{rules}\n")
    _, out, _ = run(capsys, "config", "apply", str(one))
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert rows["rulesets"].split()[1:] == ["third"]


def test_a_title_stays_on_its_line_and_columns_without_names_have_no_header(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Terminal(as_json=False).table(["", ""], [["a", "b"]], title="Wider than its table is")
    out, _ = capsys.readouterr()
    assert [line.split() for line in out.splitlines() if line.strip()] == [
        ["Wider", "than", "its", "table", "is"],
        ["a", "b"],
    ]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_identifiers_stay_whole_on_a_terminal_of_any_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command takes them; one in pieces cannot be copied."""
    monkeypatch.setattr("infra.local.terminal._WIDTH_WITHOUT_TERMINAL", width)
    columns = ["id", "when", "status", "category", "code", "destination", "what happened"]
    row = [f"{7:024}", "2026-11-21 21:16:24", "open", "storage", "instance-conflict", None, "1.2"]
    Terminal(as_json=False).table(columns, [row, row])
    out, _ = capsys.readouterr()
    words = out.split()
    assert words.count(f"{7:024}") == 2
    assert words.count("what") == (2 if width < 100 else 1)  # a paragraph each, or one table


def test_every_fault_of_a_configuration_is_listed_and_nothing_is_applied(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("settings: {default_route: []}\n")
    _, before = run_json(capsys, "config", "apply", str(site))
    site.write_text("settings: {default_rout: []}\ndestinations: [{name: a b, type: filesystem}]\n")
    status, document = run_json(capsys, "config", "apply", str(site))
    assert status == 1
    paths = {fault["path"] for fault in document["error"]["faults"]}
    assert paths == {"destinations[0].name", "destinations[0].path", "settings.default_rout"}
    assert run_json(capsys, "config", "export") == (0, before)
    status, _, err = run(capsys, "config", "apply", str(site))
    assert "destinations[0].name" in err


def test_an_instance_that_nothing_was_decided_about_is_shown_by_its_entries(
    capsys: pytest.CaptureFixture[str], home_of_its_own: Path
) -> None:
    home_of_its_own.mkdir()
    at = datetime(2026, 11, 21, tzinfo=UTC)
    raised = exception_from(ObjectMissingError("in/1"), stage=Stage.RULES, at=at)
    open_ports().exceptions.record(replace(raised, receipt_id="r-1"))
    status, shown = run_json(capsys, "instances", "show", "r-1")
    assert (status, shown["state"]) == (0, "undecided")
    assert [one["id"] for one in shown["exceptions"]] == [raised.exception_id]
    assert run(capsys, "instances", "show", "r-2")[0] == 1


def test_lists_of_an_empty_home_are_empty(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("rulesets: []\n")
    run(capsys, "config", "apply", str(site))
    assert run_json(capsys, "instances", "list") == (0, {"instances": [], "next_cursor": None})
    assert run(capsys, "instances", "list", "--cursor", "nope")[0] == 2
    nothing = {"exceptions": [], "more": False, "next_cursor": None}
    assert run_json(capsys, "exceptions", "list") == (0, nothing)
    assert run_json(capsys, "exceptions", "list", "--search", "x") == (0, nothing)
    status, job = run_json(capsys, "exceptions", "retry", "--all")
    assert (status, job["state"], job["total"]) == (0, "finished", 0)
    status, document = run_json(capsys, "exceptions", "show", "unknown")
    assert (status, document["error"]["code"]) == (1, "document-missing")


def test_a_source_that_is_not_there_is_said_with_where_to_look(
    capsys: pytest.CaptureFixture[str], home_of_its_own: Path
) -> None:
    home_of_its_own.mkdir()
    status, document = run_json(capsys, "pull", "--source", "nope", "--study", "1.2.3")
    assert (status, document["error"]["code"]) == (1, "no-source")
    assert "axiom sources list" in document["error"]["hint"]


def test_exceptions_are_found_by_filter_and_text_page_by_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("rulesets: []\n")
    run(capsys, "config", "apply", str(site))
    log = open_ports().exceptions
    for number in range(5):
        error = ObjectMissingError("needle" if number % 2 else "hay")
        at = datetime(2026, 1, 1 + number, tzinfo=UTC)
        log.record(exception_from(error, stage=Stage.RULES, at=at, key=str(number)))

    def days(*arguments: str) -> tuple[list[int], str | None]:
        status, document = run_json(capsys, "exceptions", "list", *arguments)
        assert status == 0
        return [int(e["last_at"][8:10]) for e in document["exceptions"]], document["next_cursor"]

    assert days("--stage", Stage.RULES, "--since", "2026-01-03") == ([5, 4, 3], None)
    assert days("--stage", "elsewhere") == ([], None)
    first, cursor = days("--search", "NEEDLE", "--limit", "1")
    assert first == [4]
    assert cursor
    assert days("--search", "NEEDLE", "--cursor", cursor) == ([2], None)
    assert run(capsys, "exceptions", "list", "--cursor", "of my own")[0] == 2
    assert run(capsys, "exceptions", "list", "--since", "yesterday")[0] == 2


def test_retry_without_naming_any_is_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, home_of_its_own: Path
) -> None:
    home_of_its_own.mkdir()
    assert run(capsys, "exceptions", "retry")[0] == 2


def test_a_retry_while_nothing_runs_says_that_it_waits(
    capsys: pytest.CaptureFixture[str], home_of_its_own: Path
) -> None:
    home_of_its_own.mkdir()
    raised = exception_from(
        ObjectMissingError("in/1"),
        stage=Stage.RULES,
        at=datetime(2026, 11, 21, tzinfo=UTC),
        retry_topic=Topic.INSTANCE_RECEIVED,
        retry_message=b"{}",
    )
    open_ports().exceptions.record(raised)
    status, out, _ = run(capsys, "exceptions", "retry", raised.exception_id)
    assert status == 0
    assert "what is retried waits until one does" in " ".join(out.split())


def test_no_colour_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "health")
    assert status == 1
    assert "\x1b" not in out + err
