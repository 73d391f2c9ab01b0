"""Configuration files: YAML or JSON, one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.local.terminal import CommandFailedError
from infra.local.yaml_documents import parse_yaml
from shared.config.kinds import KIND_NAMES

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


def read_configuration(path: Path) -> dict[str, Any]:
    """The document in the file, or of all files in the folder (not below) merged in name order.

    In a folder, a file that is a ruleset by itself is one of its rulesets.

    Raises: CommandFailedError naming the file, and the line where the text itself is wrong.
    """
    if not path.is_dir():
        return _read(path)
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not files:
        raise CommandFailedError(
            f"no *.yaml, *.yml or *.json file in {path}", code="nothing-to-apply"
        )
    merged: dict[str, Any] = {}
    for file in files:
        document = _read(file)
        _merge(merged, {"rulesets": [document]} if is_ruleset(document) else document, file)
    return merged


def is_ruleset(document: Mapping[str, Any]) -> bool:
    """True for one ruleset as the API takes it, and not a configuration that has some."""
    return "rules" in document and not any(part in document for part in (*KIND_NAMES, "settings"))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = _parsed(text, is_json=path.suffix.lower() == ".json")
    except OSError as error:
        raise CommandFailedError(f"{path}: {error.strerror}", code="unreadable") from None
    except UnicodeDecodeError as error:
        raise CommandFailedError(
            f"{path}: not UTF-8, at byte {error.start}",
            hint="Save it as UTF-8.",
            code="unreadable",
        ) from None
    except yaml.YAMLError as error:
        raise CommandFailedError(f"{path}: {_words_of(error)}", code="unreadable") from None
    except ValueError as error:
        raise CommandFailedError(f"{path}: {error}", code="unreadable") from None
    except RecursionError:
        raise CommandFailedError(f"{path}: it is nested too deeply", code="unreadable") from None
    if not isinstance(document, Mapping):
        raise CommandFailedError(
            f"{path}: not a mapping of listeners, destinations, rulesets, settings",
            code="unreadable",
        )
    return dict(document)


def _parsed(text: str, *, is_json: bool) -> object:
    """Raises: ValueError or YAMLError in words; RecursionError, also for what is within itself."""
    if is_json:
        return json.loads(text, object_pairs_hook=_unique_names)
    return parse_yaml(text)


def _words_of(error: yaml.YAMLError) -> str:
    """What is wrong, and in which line: PyYAML's own text names a file that nobody has."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        parts = [error.context, error.problem]
        what = ", ".join(part for part in parts if part) or "it cannot be read"
        return f"line {mark.line + 1}, column {mark.column + 1}: {what}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"at character {error.position + 1}: {error.reason}"
    return "it is no YAML"


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"{name!r} is there twice")
        document[name] = value
    return document


def _merge(merged: dict[str, Any], document: Mapping[str, Any], file: Path) -> None:
    for name, value in document.items():
        known = merged.get(name)
        if known is None:
            merged[name] = value
        elif name in KIND_NAMES and isinstance(known, list) and isinstance(value, list):
            merged[name] = [*known, *value]
        elif isinstance(known, Mapping) and isinstance(value, Mapping):
            twice = sorted(set(known) & set(value))
            if twice:
                raise CommandFailedError(
                    f"{file}: {name}.{twice[0]} is set in another file of the folder too",
                    code="unreadable",
                )
            merged[name] = {**known, **value}
        else:
            raise CommandFailedError(
                f"{file}: {name} cannot be merged with that of another file", code="unreadable"
            )
