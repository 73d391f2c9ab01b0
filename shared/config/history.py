"""Versions of the configuration: who changed what, when and why; compare them, and go back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml
from msgspec import Struct

from shared.config.differences import Difference, differences
from shared.config.entities import Configuration
from shared.config.service import COLLECTION, HEAD, HISTORY, ConfigurationService
from shared.errors import DocumentMissingError
from shared.ports import DocumentStore, ObjectStore

_MAX_VERSIONS: Final = 500  # that one look at a ruleset's history goes back
_PAGE: Final = 100


class Version(Struct, frozen=True):
    """One version; `reason` is what its author said, "" for nothing."""

    version: int
    at: str
    by: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """As the API and the command line show it."""
        return {"version": self.version, "at": self.at, "by": self.by, "reason": self.reason}


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
        return differences(self._document_or_empty(before), self._document_or_empty(after))

    def unified_diff(self, before: int, after: int) -> str:
        """The same as a unified diff of both as YAML; "" if they are equal."""
        first, second = (
            yaml.safe_dump(self._document_or_empty(number), sort_keys=False, allow_unicode=True)
            for number in (before, after)
        )
        return unified_diff(first, second, f"version {before}", f"version {after}")

    def of_entity(
        self, kind: str, name: str, *, limit: int = 50, before: int | None = None
    ) -> tuple[list[tuple[Version, Any]], int | None]:
        """The versions that changed one entity, newest first, each with what it was then; None
        where it was removed. Of those older than `before`; what to go on with as `before`, None at
        the end. Looks back 500 versions, and so may give fewer than `limit`.
        """
        found: list[tuple[Version, Any]] = []
        newest = self._newest() if before is None else min(self._newest(), before - 1)
        oldest = max(0, newest - _MAX_VERSIONS + 1)
        later: tuple[Version, Any] | None = None
        for number in range(newest, oldest - 1, -1):
            data = self._data(number)
            if data is None and number:
                continue
            document = self._document_or_empty(number)
            entity = next((one for one in document.get(kind, ()) if one["name"] == name), None)
            if later is not None and later[1] != entity:
                found.append(later)
                if len(found) == limit:
                    return found, later[0].version
            later = None if data is None else (_version_of(data), entity)
        return found, oldest + 1 if oldest else None

    def roll_back(
        self,
        number: int,
        *,
        by: str,
        reason: str = "",
        if_unchanged: Callable[[dict[str, Any]], bool] = lambda _: True,
        ruleset: str = "",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Make an earlier version current again, as a new version, and return it; with `ruleset`,
        only that one is as it was then, or goes if it was not there.

        Raises: DocumentMissingError; InvalidConfigurationError if it is not right any more;
        DocumentChangedError if `if_unchanged` says so of the whole configuration as it is, or if
        somebody changed rulesets at the same time.
        """
        document = self.document(number)
        now = self._service.list("rulesets")
        if ruleset:
            document = {"rulesets": _with_one_of(document["rulesets"], now, ruleset)}
        of_what = f"{ruleset} " if ruleset else ""
        return self._service.apply(
            document,
            by=by,
            reason=reason or f"roll {of_what}back to version {number}",
            if_unchanged=lambda plain: (
                if_unchanged(plain) and (not ruleset or plain["rulesets"] == now)
            ),
            dry_run=dry_run,
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


def _version_of(data: Mapping[str, Any]) -> Version:
    return Version(data["version"], data["at"], data["by"], data.get("reason", ""))


def _with_one_of(
    then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], name: str
) -> list[Mapping[str, Any]]:
    """The rulesets of now, but that of the name as it was then. Raises: DocumentMissingError."""
    wanted = next((one for one in then if one["name"] == name), None)
    placed: dict[str, Mapping[str, Any] | None] = {one["name"]: one for one in now}
    if wanted is None and name not in placed:
        raise DocumentMissingError("rulesets", name)
    return [one for one in (placed | {name: wanted}).values() if one is not None]
