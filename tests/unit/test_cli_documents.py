"""Configuration files: what people write, and what is said of what they cannot have meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.documents import is_ruleset, read_configuration
from infra.local.terminal import CommandFailedError


def test_reads_yaml_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("settings: {default_route: [archive]}\n")
    (tmp_path / "b.json").write_text('{"settings": {"default_route": ["archive"]}}')
    assert read_configuration(tmp_path / "a.yaml") == read_configuration(tmp_path / "b.json")


def test_a_folder_is_merged_as_one(tmp_path: Path) -> None:
    (tmp_path / "10-pacs.yml").write_text("destinations: [{name: pacs}]\nsettings: {a: 1}\n")
    (tmp_path / "20-cloud.json").write_text('{"destinations": [{"name": "cloud"}]}')
    (tmp_path / "30-settings.yaml").write_text("settings: {b: 2}\n")
    (tmp_path / "README.md").write_text("not configuration")
    assert read_configuration(tmp_path) == {
        "destinations": [{"name": "pacs"}, {"name": "cloud"}],
        "settings": {"a": 1, "b": 2},
    }


def test_a_ruleset_by_itself_is_known_as_one(tmp_path: Path) -> None:
    ruleset = {"name": "r", "rules": []}
    (tmp_path / "a.json").write_text('{"name": "r", "rules": []}')
    assert is_ruleset(read_configuration(tmp_path / "a.json"))
    assert not is_ruleset({"rulesets": [ruleset], "rules": []})
    (tmp_path / "b.yaml").write_text("rulesets: [{name: s, rules: []}]\n")
    both = {"rulesets": [ruleset, {"name": "s", "rules": []}]}
    assert read_configuration(tmp_path) == both


def test_a_setting_in_two_files_is_a_fault(tmp_path: Path) -> None:
    """Which of them wins would depend on file names."""
    (tmp_path / "a.yaml").write_text("settings: {max_instance_bytes: 1}\n")
    (tmp_path / "b.yaml").write_text("settings: {max_instance_bytes: 2}\n")
    with pytest.raises(CommandFailedError, match=r"settings\.max_instance_bytes"):
        read_configuration(tmp_path)


def test_a_key_given_twice_is_a_fault(tmp_path: Path) -> None:
    """YAML would keep the last one without a word."""
    (tmp_path / "a.yaml").write_text("rulesets: []\nrulesets: []\n")
    with pytest.raises(CommandFailedError, match="'rulesets' is there twice"):
        read_configuration(tmp_path / "a.yaml")


def test_a_name_given_twice_in_json_is_a_fault(tmp_path: Path) -> None:
    """JSON parsers too would keep the last one without a word (RFC 8259 4)."""
    (tmp_path / "a.json").write_text('{"rulesets": [], "rulesets": []}')
    with pytest.raises(CommandFailedError, match="'rulesets' is there twice"):
        read_configuration(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[" * 100_000),
        ("a.yaml", "a: " + "[" * 3_000),
        ("a.yaml", "- " * 200_000 + "a"),
        ("a.yaml", "a: &x [*x]\n"),
        ("a.yaml", "a: &x {b: *x}\n"),
    ],
)
def test_what_has_no_end_is_a_fault(tmp_path: Path, name: str, text: str) -> None:
    """Nesting that no reader gets through, and a part that is within itself."""
    (tmp_path / name).write_text(text)
    with pytest.raises(CommandFailedError, match=f"{name}: it is nested too deeply"):
        read_configuration(tmp_path / name)


def test_a_part_may_be_said_once_and_meant_often(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x {b: 1}\nc: [*x, *x]\nd: {<<: *x, e: 2}\n")
    assert read_configuration(tmp_path / "a.yaml") == {
        "a": {"b": 1},
        "c": [{"b": 1}, {"b": 1}],
        "d": {"b": 1, "e": 2},
    }


def test_a_date_without_quotes_stays_text(tmp_path: Path) -> None:
    """Configuration is JSON, which has no dates."""
    (tmp_path / "a.yaml").write_text("value: 2026-01-02\n")
    assert read_configuration(tmp_path / "a.yaml") == {"value": "2026-01-02"}


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("value: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(CommandFailedError):
        read_configuration(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", "- a list\n"), ("a.json", "{"), ("a.yaml", "a: [\n"), ("a.yaml", "")],
)
def test_says_which_file_is_wrong(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CommandFailedError, match=name):
        read_configuration(tmp_path / name)


def test_an_empty_folder_is_not_an_empty_configuration(tmp_path: Path) -> None:
    """A mistyped path must not look like success."""
    with pytest.raises(CommandFailedError, match=r"no \*\.yaml"):
        read_configuration(tmp_path)


def test_a_fault_of_yaml_is_told_by_its_line_and_no_file_that_nobody_has(tmp_path: Path) -> None:
    for text, words in (
        ("a: [1\nb: 2", "line 2"),
        ("a: 1\na: 2", "line 2, column 1: 'a' is there twice"),
        ("a: \x01", "at character"),
    ):
        file = tmp_path / "site.yaml"
        file.write_text(text)
        with pytest.raises(CommandFailedError) as told:
            read_configuration(file)
        assert words in told.value.message
        assert "<" not in told.value.message.replace("`<", "")
