"""Versions of the configuration: who changed what, when and why; compare them, and go back."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from shared.config.entities import Configuration
from shared.config.service import COLLECTION, HEAD, HISTORY, ConfigurationService
from shared.errors import DocumentMissingError
from shared.ports import DocumentStore, ObjectStore

_MAX_VERSIONS: Final = 500  # that one look at a ruleset's history goes back
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Version:
    """One version; `reason` is what its author said, "" for nothing."""

    version: int
    at: str
    by: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """As the API and the command line show it."""
        return {"version": self.version, "at": self.at, "by": self.by, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Difference:
    """One place that differs. `before` or `after` is None where there is nothing."""

    path: str  # rulesets[main].rules[ct].destinations
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """As the API and the command line show it."""
        return {"path": self.path, "before": self.before, "after": self.after}


class ConfigurationHistory:
    """The versions behind a ConfigurationService."""

    def __init__(
        self, objects: ObjectStore, documents: DocumentStore, service: ConfigurationService
    ) -> None:
        self._objects, self._documents, self._service = objects, documents, service

    def versions(self, *, limit: int = 100, before: int | None = None) -> list[Version]:
        """The newest first; with `before`, those older than that version."""
        newest = self._newest() if before is None else before - 1
        found = (self._data(number) for number in range(newest, max(0, newest - limit), -1))
        return [_version_of(data) for data in found if data is not None]

    def version(self, number: int) -> Version:
        """One version. Raises: DocumentMissingError."""
        return _version_of(self._existing(number))

    def configuration(self, number: int) -> Configuration:
        """The configuration as it was. Raises: DocumentMissingError."""
        with self._objects.open(self._existing(number)["object"]) as reader:
            return Configuration.model_validate_json(reader.read_at(0, reader.size))

    def document(self, number: int) -> dict[str, Any]:
        """The same as plain values. Raises: DocumentMissingError."""
        return self._service.plain(self.configuration(number))

    def differences(self, before: int, after: int) -> list[Difference]:
        """What differs between two versions; 0 is the empty configuration."""
        return list(
            _differences("", self._document_or_empty(before), self._document_or_empty(after))
        )

    def unified_diff(self, before: int, after: int) -> str:
        """The same as a unified diff of both as YAML; "" if they are equal."""
        first, second = (
            yaml.safe_dump(self._document_or_empty(number), sort_keys=False, allow_unicode=True)
            for number in (before, after)
        )
        return unified_diff(first, second, f"version {before}", f"version {after}")

    def of_entity(self, kind: str, name: str, *, limit: int = 50) -> list[tuple[Version, Any]]:
        """The versions that changed one entity, newest first, each with what it was then; None
        where it was removed. Looks back 500 versions.
        """
        found: list[tuple[Version, Any]] = []
        newest = self._newest()
        later: tuple[Version, Any] | None = None
        for number in range(newest, max(-1, newest - _MAX_VERSIONS), -1):
            data = self._data(number)
            if data is None and number:
                continue
            document = self._document_or_empty(number)
            entity = next((one for one in document.get(kind, ()) if one["name"] == name), None)
            if later is not None and later[1] != entity:
                found.append(later)
                if len(found) == limit:
                    break
            later = None if data is None else (_version_of(data), entity)
        return found

    def roll_back(self, number: int, *, by: str, reason: str = "") -> dict[str, Any]:
        """Make an earlier version current again, as a new version, and return it.

        Raises: DocumentMissingError; InvalidConfigurationError if it is not right any more.
        """
        document = self.document(number)
        return self._service.apply(
            document, by=by, reason=reason or f"roll back to version {number}"
        )

    def _newest(self) -> int:
        head = self._documents.get(COLLECTION, HEAD)
        return 0 if head is None else int(head.data["version"])

    def _data(self, number: int) -> Mapping[str, Any] | None:
        found = self._documents.get(HISTORY, f"{number:08d}")
        if found is None:
            # The newest is named by the head first, and only then in the history.
            found = self._documents.get(COLLECTION, HEAD)
        return None if found is None or found.data["version"] != number else found.data

    def _existing(self, number: int) -> Mapping[str, Any]:
        data = self._data(number)
        if data is None:
            raise DocumentMissingError("configuration versions", str(number))
        return data

    def _document_or_empty(self, number: int) -> dict[str, Any]:
        return self._service.plain(Configuration()) if number == 0 else self.document(number)


def unified_diff(before: str, after: str, name_before: str, name_after: str) -> str:
    """A unified diff of two texts; "" if they are equal."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), name_before, name_after, lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)


def differences(before: Any, after: Any) -> list[Difference]:
    """What differs between two plain values; entities and rules are told apart by their names."""
    return list(_differences("", before, after))


def _version_of(data: Mapping[str, Any]) -> Version:
    return Version(data["version"], data["at"], data["by"], data.get("reason", ""))


def _differences(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            below = f"{path}.{name}" if path else str(name)
            yield from _differences(below, before.get(name), after.get(name))
        return
    named_before, named_after = _by_name(before), _by_name(after)
    if named_before is None or named_after is None:
        yield Difference(path, before, after)
        return
    for name in dict.fromkeys([*named_before, *named_after]):
        yield from _differences(f"{path}[{name}]", named_before.get(name), named_after.get(name))
    if named_before.keys() == named_after.keys() and list(named_before) != list(named_after):
        yield Difference(f"{path} (order)", list(named_before), list(named_after))


def _by_name(value: Any) -> dict[str, Any] | None:
    """A list of things with different names, by name; None for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    names = [one.get("name") if isinstance(one, Mapping) else None for one in value]
    if None in names or len(set(names)) != len(names):
        return None
    return dict(zip(map(str, names), value, strict=True))
