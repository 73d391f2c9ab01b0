"""`axiom rules`: test, check, try out and explain rulesets."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from infra.local.options import json_option, open_ports, principal, read_environment, remote
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.pipeline.dry_run import Trial

COOKBOOK = Path(__file__).resolve().parents[3] / "docs" / "rules"

_SUFFIXES = (".yaml", ".yml", ".json")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

dicom_option = click.option("--dicom", type=_FILE, help="A DICOM file.")
dump_option = click.option("--dump", type=_FILE, help="A tag dump: text of dcmdump, or JSON.")
fact_option = click.option(
    "--fact",
    "facts",
    multiple=True,
    metavar="NAME=VALUE",
    help="What is known beside the Attributes: calling_ae=CT_1, peer_address=10.0.0.7, ...",
)


@click.group("rules", help="Test, check, try out and explain rulesets.")
def command() -> None:
    """A file holds one ruleset, or a configuration with several."""


@command.command("test")
@click.argument(
    "paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]..."
)
@json_option
def test(paths: Sequence[Path], as_json: bool) -> int:
    """Run the tests beside the rules of each file, or of all files in a folder.

    Without a PATH: the rulesets that ship in docs/rules. Exit status 1 if a test fails.
    """
    terminal = Terminal(as_json)
    results = [
        result
        for file in map(_read, _files(paths or [COOKBOOK]))
        for document in file.rulesets
        for result in _run_tests(file, document)
    ]
    failed = [result for result in results if not result["passed"]]
    terminal.document(
        {"passed": len(results) - len(failed), "failed": len(failed), "results": results}
    )
    for result in failed:
        terminal.say(f"{result['file']}: {result['ruleset']}: {result['test']}", style="red")
        for difference in result["differences"]:
            terminal.say(f"    {difference}")
    terminal.say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return int(bool(failed))


@command.command("validate")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option(
    "--alone", is_flag=True, help="Do not ask whether the destinations that it names are there."
)
@json_option
def validate(files: Sequence[Path], alone: bool, as_json: bool) -> None:
    """Check rulesets as if they were applied, their tests included; nothing is changed."""
    from shared.rules import check_ruleset

    terminal = Terminal(as_json)
    configuration = None
    api = None if alone else remote()
    if not alone and api is None and read_environment().home.exists():
        configuration = open_ports().configuration
    names = []
    for file in map(_read, files):
        if file.configuration and (api or configuration):
            if api is not None:
                api.apply(file.configuration, dry_run=True)
            elif configuration is not None:
                configuration.apply(file.configuration, by=principal(), dry_run=True)
            names += [str(document["name"]) for document in file.rulesets]
            continue
        for document in file.rulesets:
            if api is not None:
                api.validate_ruleset(document)
            elif configuration is None:
                check_ruleset(document, study_rules=True, **file.known())
            else:
                configuration.validate("rulesets", document)
            names.append(str(document["name"]))
    terminal.document({"valid": names})
    for name in names:
        terminal.say(f"{name}: nothing is wrong with it")


@command.command("dry-run")
@click.argument("file", type=_FILE)
@dicom_option
@dump_option
@click.option("--last", type=click.IntRange(1, 1000), help="The last Instances received.")
@fact_option
@json_option
def dry_run(
    file: Path,
    dicom: Path | None,
    dump: Path | None,
    last: int | None,
    facts: Sequence[str],
    as_json: bool,
) -> None:
    """Say what the ruleset in FILE would decide, and where that is not what the live rules do.

    Shows patients' Values. Nothing is changed or sent.
    """
    from shared.audit import AuditLog
    from shared.pipeline import dry_run as trying

    terminal = Terminal(as_json)
    document = _only_one(_read(file))
    if sum(one is not None for one in (dicom, dump, last)) != 1:
        raise click.UsageError("Give one of --dicom, --dump and --last.")
    report: Mapping[str, Any]
    if (api := remote()) is not None:
        report = api.dry_run({"ruleset": document, **_sent(dicom, dump, last, facts)})
    else:
        ports = open_ports()
        candidate = ports.rules.read_candidate(document)
        trials: Iterable[Trial] = (
            trying.past_trials(ports, last) if last else [_trial(dicom, dump, facts)]
        )
        report = trying.report(trials, *trying.programs(ports, candidate))
        AuditLog(ports.documents, ports.clock).add(
            who=principal(), what="rulesets.dry-run", id=candidate.name
        )
    terminal.document(report)
    terminal.table(
        ["Instance", "verdict", "rules", "destinations", "differs from live"],
        [
            [
                result["instance"],
                result["candidate"].get("verdict", result["candidate"].get("error")),
                ", ".join(result["candidate"].get("matched_rules", ())),
                ", ".join(result["candidate"].get("destinations", ())),
                "\n".join(result["differences"]),
            ]
            for result in report["results"]
        ],
        title=f"{report['instances']} Instances, {report['different']} of them differ",
        empty="No Instances.",
    )
    for result in report["results"] if dicom or dump else ():
        _print_changes(terminal, result["candidate"])
        for warning in result.get("warnings", ()):
            terminal.say(warning, style="yellow")


@command.command("explain")
@click.argument("receipt", required=False)
@dicom_option
@dump_option
@fact_option
@click.option(
    "--rules",
    "whose",
    type=click.Choice(["decided", "current"]),
    default="decided",
    show_default=True,
    help="The rules that decided about RECEIPT, or those that are live now.",
)
@json_option
def explain(
    receipt: str | None,
    dicom: Path | None,
    dump: Path | None,
    facts: Sequence[str],
    whose: str,
    as_json: bool,
) -> None:
    """Say why each rule matched or not, with the Values that it saw.

    Of a received Instance, or with the live rules of a file or a dump. Shows patients' Values.
    """
    from shared.config.history import ConfigurationHistory
    from shared.pipeline.explaining import explain_instance, explain_trial

    terminal = Terminal(as_json)
    if sum(one is not None for one in (receipt, dicom, dump)) != 1:
        raise click.UsageError("Give one of RECEIPT, --dicom and --dump.")
    told: Mapping[str, Any]
    api = remote()
    if api is not None and receipt is None:
        raise click.UsageError("--dicom and --dump work on AXIOM_HOME alone; try dry-run.")
    if api is not None and receipt is not None:
        _print_account(terminal, api.explain(receipt, whose))
        return
    ports = open_ports()
    if receipt is not None:
        known = ports.documents.get("instances", receipt)
        decided_by = None
        if known is not None and whose == "decided":
            history = ConfigurationHistory(ports.objects, ports.documents, ports.configuration)
            decided_by = history.configuration(int(known.data["configuration_version"]))
        told = explain_instance(receipt, ports, decided_by, by=principal())
    else:
        told = explain_trial(_trial(dicom, dump, facts), ports.rules.program()[1])
    _print_account(terminal, told)


def _print_account(terminal: Terminal, told: Mapping[str, Any]) -> None:
    terminal.document(told)
    if terminal.as_json:
        return
    for rule in told["rules"]:
        style = "green" if rule["matched"] else None
        terminal.say(f"{rule['rule']}: {rule['reason']}", style=style)
        for condition in rule["conditions"]:
            seen = ", ".join(f"{name} = {_shown(v)}" for name, v in condition["seen"].items())
            mark = "holds" if condition["holds"] else "fails"
            terminal.say(f"    {mark}: {condition['condition']}    [{seen}]")
    decision = told["decision"]
    if refused := decision.get("refused"):
        terminal.say(f"refused at reception by {refused['rule']}: {refused['reason']}", style="red")
    terminal.say(
        decision["error"]
        if "error" in decision
        else f"verdict {decision['verdict']}, destinations: "
        + (", ".join(decision["destinations"]) or _nowhere(decision))
    )
    _print_changes(terminal, decision)


def _nowhere(decision: Mapping[str, Any]) -> str:
    if decision["verdict"] != "route":
        return "none"
    if decision["waits_for"]:
        return f"as {', '.join(decision['waits_for'])} said; else the default route, or held"
    return "none by rule; then the default route, or held"


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES) if path.is_dir() else []
        found += inside or [path]
    return found


class _File(NamedTuple):
    """A file of rulesets; `configuration` is all of it if it is one, else empty."""

    path: Path
    rulesets: list[Mapping[str, Any]]
    configuration: Mapping[str, Any]

    def known(self) -> dict[str, Any]:
        """What its rulesets may name of the file itself, as `parse_ruleset` takes it."""
        from shared.config.crosswalks import outlines
        from shared.config.schedules import readable

        has_maps = "crosswalk_maps" in self.configuration
        return {
            "schedules": readable(self.configuration),
            "crosswalks": outlines(self.configuration) if has_maps else None,
        }


def _read(file: Path) -> _File:
    from infra.local.documents import read_configuration
    from shared.config.entities import Configuration
    from shared.errors import Fault, InvalidConfigurationError
    from shared.rules.reading import nearest

    if file.is_dir():
        raise CommandFailedError(f"no *.yaml, *.yml or *.json file in {file}", code="unreadable")
    document = read_configuration(file)
    rulesets = document.get("rulesets")
    if "rules" not in document and isinstance(rulesets, list):
        known = sorted(Configuration.model_fields)
        faults = [
            Fault(name[:100], "is no field here", nearest(name, known))
            for name in map(str, document)
            if name not in known
        ]
        if faults:
            raise InvalidConfigurationError(*faults)
        return _File(file, [one if isinstance(one, Mapping) else {} for one in rulesets], document)
    return _File(file, [document], {})


def _only_one(file: _File) -> Mapping[str, Any]:
    if len(file.rulesets) != 1:
        raise CommandFailedError(f"{file.path} has {len(file.rulesets)} rulesets, one is wanted")
    return file.rulesets[0]


def _run_tests(file: _File, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    from shared.errors import InvalidConfigurationError
    from shared.rules import parse_ruleset
    from shared.rules.selftest import run_tests

    about: dict[str, Any] = {"file": str(file.path), "ruleset": str(document.get("name", ""))}
    try:
        results = run_tests(parse_ruleset(document, **file.known()))
    except InvalidConfigurationError as error:
        faults = [str(fault) for fault in error.faults]
        return [{**about, "test": "(is a ruleset)", "passed": False, "differences": faults}]
    return [
        {**about, "test": one.test, "passed": one.passed, "differences": list(one.differences)}
        for one in results
    ]


def _trial(dicom: Path | None, dump: Path | None, facts: Sequence[str]) -> Trial:
    from shared.pipeline.dry_run import trial_of_dump, trial_of_file
    from shared.rules.dump import DumpError

    known = _facts(facts)
    path = dicom or dump
    assert path is not None
    try:
        if dicom is not None:
            return trial_of_file(path.name, path.read_bytes(), known)
        return trial_of_dump(path.name, path.read_text(encoding="utf-8", errors="replace"), known)
    except OSError as error:
        raise CommandFailedError(f"{path}: {error.strerror}", code="unreadable") from None
    except DumpError as error:
        raise CommandFailedError(f"{path}: {error}", code="invalid-dump") from None


def _sent(
    dicom: Path | None, dump: Path | None, last: int | None, facts: Sequence[str]
) -> dict[str, Any]:
    """What to try rules on, as the API takes it."""
    known = {"facts": _facts(facts)} if facts else {}
    if last is not None:
        return {"last": last}
    path = dicom or dump
    assert path is not None
    data = path.read_bytes()
    if dicom is not None:
        return {"dicom": base64.b64encode(data).decode(), **known}
    return {"dump": data.decode("utf-8", "replace"), **known}


def _facts(given: Sequence[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"--fact {one}: write NAME=VALUE.")
        words = {"true": True, "false": False}
        facts[name] = (
            int(value) if name == "size" and value.isdecimal() else words.get(value, value)
        )
    return facts


def _print_changes(terminal: Terminal, decision: Mapping[str, Any]) -> None:
    changes = {"(all)": decision.get("changes", ()), **decision.get("changes_for", {})}
    terminal.table(
        ["destination", "Attribute", "old", "new", "by"],
        [
            [name, one["path"], _shown(one["old"]), _shown(one["new"]), one["by"]]
            for name, found in changes.items()
            for one in found
        ],
        title="Changes",
        empty="No changes.",
    )
    for name, uid in decision.get("transfer_syntaxes", {}).items():
        terminal.say(f"transfer syntax for {name}: {uid}")


def _shown(values: Sequence[Any] | None) -> str:
    return "(absent)" if values is None else "\\".join(map(str, values))
