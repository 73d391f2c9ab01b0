"""The configuration's life: read, change as a whole, keep every version.

Each version is one immutable object; one document, the head, names the current one and is moved by
compare-and-set. So a change applies whole or not at all, two people cannot overwrite each other
unseen, and a reader sees a change by looking at one small document.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from shared import crash_points
from shared.addresses import hosts_of, policy
from shared.audit import AuditLog
from shared.config.crosswalks import outlines
from shared.config.differences import Difference, differences
from shared.config.entities import Configuration
from shared.config.entity import entities
from shared.config.faults import field_fault
from shared.config.kinds import KIND_NAMES, KINDS
from shared.config.schedules import readable
from shared.config.secret_names import secret_names
from shared.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    Fault,
    InvalidConfigurationError,
    SecretMissingError,
)
from shared.ports import Clock, Document, DocumentStore, ObjectStore, SecretStore
from shared.rules import check_ruleset
from shared.times import timestamp

COLLECTION, HEAD, HISTORY = "configuration", "head", "configuration-history"

# What moves to the secret store, of an entity's credentials and TLS.
_SECRET_FIELDS = ("password", "token", "client_secret", "private_key")
# Of a listener: where it connects to, which it does not do to its own host.
_PEERS_OF_OURS = ("commitment_peers", "query_retrieve")
_OF_SEVERAL_TYPES = frozenset(kind.name for kind in KINDS if kind.has_types)

# So much of a change is in the audit log; a document of the cloud holds no mebibyte.
_MOST_NOTED_BYTES, _MOST_NOTED_PATHS = 100_000, 500

# How long a reader may go on with the version it knows.
_REFRESH_S = 0.5


_PLACE = re.compile(r"(\w+)\[(\d+)\]\.?(.*)", re.DOTALL)


class Reference(Struct, frozen=True):
    """A place that uses an entity. `name` is None in the settings."""

    kind: str
    name: str | None
    path: str

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"kind": self.kind, "name": self.name, "path": self.path}


class MissingSecret(Struct, frozen=True):
    """A place that names a secret which is not there."""

    path: str
    name: str

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"path": self.path, "name": self.name}


class ConfigurationService:
    """Reads and changes the configuration; one for each process."""

    def __init__(
        self,
        objects: ObjectStore,
        documents: DocumentStore,
        secret_store: SecretStore,
        clock: Clock,
        first: Mapping[str, Any] | None = None,
    ) -> None:
        """`first` is stored as the first version once it is seen that there is none."""
        self._first = first
        self._objects, self._documents = objects, documents
        self._secrets, self._clock = secret_store, clock
        self._audit = AuditLog(documents, clock)
        self._lock = threading.Lock()
        self._known: tuple[int, Configuration] | None = None
        self._plain: tuple[int, Mapping[str, Any]] | None = None
        self._looked_at_s = float("-inf")

    # ---- reading

    def get(self) -> Configuration:
        """The current configuration, at most half a second old."""
        return self.current()[1]

    def current(self) -> tuple[int, Configuration]:
        """The version number and the configuration; 0 and an empty one before the first change."""
        with self._lock:
            known, now_s = self._known, self._clock.monotonic_s()
            if known is not None and now_s - self._looked_at_s < _REFRESH_S:
                return known
            head = self._head()
            if known is None or known[0] != _version(head):
                known = (_version(head), self._load(head))
            self._known, self._looked_at_s = known, now_s
            return known

    def export(self) -> dict[str, Any]:
        """The whole configuration as plain values; `apply` of it changes nothing."""
        found: dict[str, Any] = _copied(self._shown())
        return found

    def list(self, kind: str) -> list[dict[str, Any]]:
        """All entities of a kind (see `kinds`) as plain values."""
        found: list[dict[str, Any]] = _copied(self._shown()[kind])
        return found

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """One entity. Raises: DocumentMissingError."""
        found: dict[str, Any] = _copied(_named(self._shown(), kind, name))
        return found

    def references(self, kind: str, name: str) -> tuple[Reference, ...]:
        """What would be wrong without this entity: what uses it. Raises: DocumentMissingError."""
        plain = self.export()
        _named(plain, kind, name)
        without = {**plain, kind: [e for e in plain[kind] if e["name"] != name]}
        try:
            check(without)
        except InvalidConfigurationError as error:
            return tuple(_reference(fault, without) for fault in error.faults)
        return ()

    def missing_secrets(self) -> tuple[MissingSecret, ...]:
        """The secrets that the configuration names and the secret store does not have.

        Raises: TransientError if the store cannot tell.
        """
        named = list(secret_names(self._shown()))
        missing = {name for name in {name for _, name in named} if not self._has_secret(name)}
        return tuple(MissingSecret(path, name) for path, name in named if name in missing)

    def validate(self, kind: str, document: Mapping[str, Any]) -> None:
        """Check one entity as if it were stored, in the place of the one of its name or as a new
        one. Raises: InvalidConfigurationError with every fault.
        """
        name, plain = _name_of(document), self.export()
        others = [entity for entity in plain[kind] if entity["name"] != name]
        check({**plain, kind: [*others, dict(document)]}, only=(kind, name))

    @staticmethod
    def plain(configuration: Configuration) -> dict[str, Any]:
        """A configuration as plain values, in the form that `export` gives."""
        return _plain(configuration)

    # ---- changing: each returns what is stored then, and checks the whole before any of it applies
    # (`by` and `reason` are kept with the version that comes of it)

    def apply(
        self,
        document: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        if_unchanged: Callable[[dict[str, Any]], bool] = lambda _: True,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Replace the parts that the document names (kinds and settings); keep the others.

        Raises: InvalidConfigurationError with every fault; DocumentChangedError if `if_unchanged`
        says so of the whole configuration as it is.
        """

        def replaced(plain: dict[str, Any]) -> dict[str, Any]:
            if not if_unchanged(plain):
                raise DocumentChangedError(COLLECTION, HEAD)
            return {**plain, **document}

        return self._change(replaced, by, reason, dry_run=dry_run)

    def patch_settings(
        self,
        patch: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        if_unchanged: Callable[[dict[str, Any]], bool] = lambda _: True,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Change the settings by a JSON Merge Patch (RFC 7396); the whole configuration then."""

        def patched(plain: dict[str, Any]) -> dict[str, Any]:
            if not if_unchanged(plain):
                raise DocumentChangedError(COLLECTION, HEAD)
            return {**plain, "settings": merged(plain["settings"], patch)}

        return self._change(patched, by, reason, dry_run=dry_run)

    def create_first(self, document: Mapping[str, Any], *, by: str) -> None:
        """Apply `document` unless there is a configuration; of several callers, one wins."""
        try:
            self._store(None, check(document), by)
        except DocumentExistsError:
            return

    def create(
        self,
        kind: str,
        document: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Add one entity. Raises: DocumentExistsError, InvalidConfigurationError."""
        name = _name_of(document)

        def added(plain: dict[str, Any]) -> dict[str, Any]:
            if any(entity["name"] == name for entity in plain[kind]):
                raise DocumentExistsError(kind, name)
            return {**plain, kind: [*plain[kind], dict(document)]}

        after = self._change(added, by, reason, only=(kind, name), dry_run=dry_run)
        return _named(after, kind, name)

    def replace(
        self,
        kind: str,
        name: str,
        document: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        if_unchanged: Callable[[dict[str, Any]], bool] = lambda _: True,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Put another entity in the place of one, name included.

        Raises: DocumentMissingError; DocumentChangedError if `if_unchanged` says so of the stored
        one; InvalidConfigurationError.
        """

        def swapped(plain: dict[str, Any]) -> dict[str, Any]:
            _find(plain, kind, name, if_unchanged)
            listed = [dict(document) if e["name"] == name else e for e in plain[kind]]
            return {**plain, kind: listed}

        new_name = _name_of(document) or name
        after = self._change(swapped, by, reason, only=(kind, new_name), dry_run=dry_run)
        return _named(after, kind, new_name)

    def put(
        self,
        kind: str,
        document: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Put an entity in the place of the one of its name, or add it.

        Raises: InvalidConfigurationError.
        """
        name = _name_of(document)

        def with_it(plain: dict[str, Any]) -> dict[str, Any]:
            placed = {entity["name"]: entity for entity in plain[kind]} | {name: dict(document)}
            return {**plain, kind: list(placed.values())}

        after = self._change(with_it, by, reason, only=(kind, name), dry_run=dry_run)
        return _named(after, kind, name)

    def edit(
        self,
        kind: str,
        name: str,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        by: str,
        reason: str = "",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Put what `change` makes of an entity in its place; the name stays. It is asked again if
        somebody else was first.

        Raises: DocumentMissingError; InvalidConfigurationError; whatever `change` raises.
        """

        def edited(plain: dict[str, Any]) -> dict[str, Any]:
            known = _named(plain, kind, name)
            return {**plain, kind: [change(e) if e is known else e for e in plain[kind]]}

        return _named(self._change(edited, by, reason, (kind, name), dry_run=dry_run), kind, name)

    def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        if_unchanged: Callable[[dict[str, Any]], bool] = lambda _: True,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Change one entity by a JSON Merge Patch (RFC 7396): null takes a field away, and a list
        is replaced as a whole.

        Raises: as `replace`.
        """
        new_name = _name_of(patch) or name

        def patched(plain: dict[str, Any]) -> dict[str, Any]:
            _find(plain, kind, name, if_unchanged)
            listed = [merged(e, patch) if e["name"] == name else e for e in plain[kind]]
            return {**plain, kind: listed}

        after = self._change(patched, by, reason, only=(kind, new_name), dry_run=dry_run)
        return _named(after, kind, new_name)

    def delete(
        self,
        kind: str,
        name: str,
        *,
        by: str,
        reason: str = "",
        if_unchanged: Callable[[dict[str, Any]], bool] = lambda _: True,
        dry_run: bool = False,
    ) -> None:
        """Remove one entity.

        Raises: DocumentMissingError; DocumentChangedError; InvalidConfigurationError if others
        still use it.
        """

        def removed(plain: dict[str, Any]) -> dict[str, Any]:
            _find(plain, kind, name, if_unchanged)
            return {**plain, kind: [e for e in plain[kind] if e["name"] != name]}

        self._change(removed, by, reason, dry_run=dry_run)

    # ---- inside

    def _has_secret(self, name: str) -> bool:
        try:
            self._secrets.get(name)
        except SecretMissingError:
            return False
        return True

    def _shown(self) -> Mapping[str, Any]:
        """The newest configuration as plain values, which everybody is shown and nobody changes."""
        version, configuration = self._fresh()
        known = self._plain
        if known is None or known[0] != version:
            known = self._plain = (version, _plain(configuration))
        return known[1]

    def _fresh(self) -> tuple[int, Configuration]:
        with self._lock:
            self._looked_at_s = float("-inf")
        return self.current()

    def _head(self) -> Document | None:
        head = self._documents.get(COLLECTION, HEAD)
        if head is None and self._first is not None:
            self.create_first(self._first, by="first start")
            head = self._documents.get(COLLECTION, HEAD)
        return head

    def _load(self, head: Document | None) -> Configuration:
        if head is None:
            return Configuration()
        with self._objects.open(head.data["object"]) as reader:
            return Configuration.model_validate_json(reader.read_at(0, reader.size))

    def _change(
        self,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        by: str,
        reason: str,
        only: tuple[str, str] | None = None,
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Apply `change` to the newest version; somebody else's change meanwhile starts it anew.

        With `dry_run` all is as ever, but nothing is stored.
        """
        while True:
            head = self._head()
            before = _plain(self._load(head))
            after = change(before)
            checked = check(after, only=only)
            if _plain(checked) == before and head is not None:
                return before
            configuration = self._without_clear_secrets(checked, dry_run=dry_run)
            if dry_run:
                return _plain(configuration)
            try:
                self._store(head, configuration, by, reason)
            except (DocumentChangedError, DocumentExistsError):
                continue
            self._fresh()
            after = _plain(configuration)
            self._note(_version(head) + 1, differences(before, after), by, reason)
            return after

    def _note(self, version: int, found: Sequence[Difference], by: str, reason: str) -> None:
        changes = [one.as_json() for one in found]
        if len(json.dumps(changes)) > _MOST_NOTED_BYTES:
            # The versions themselves have the rest.
            changes = [{"path": one.path} for one in found[:_MOST_NOTED_PATHS]]
        self._audit.add(
            who=by, what="configuration.change", id=str(version), reason=reason, changes=changes
        )

    def _store(
        self, head: Document | None, configuration: Configuration, by: str, reason: str = ""
    ) -> None:
        version = _version(head) + 1
        name = f"configuration/{version:08d}-{secrets.token_hex(4)}.json"
        with self._objects.create(name) as writer:
            writer.write(configuration.model_dump_json(exclude_unset=True).encode())
            writer.commit()
        crash_points.reached(crash_points.AFTER_CONFIGURATION_OBJECT)
        data = {
            "version": version,
            "object": name,
            "by": by,
            "reason": reason,
            "at": timestamp(self._clock.now()),
        }
        if head is None:
            self._documents.create(COLLECTION, HEAD, data)
        else:
            # Its author may have ended before it was written here.
            self._documents.put(HISTORY, f"{head.data['version']:08d}", head.data)
            self._documents.replace(COLLECTION, HEAD, data, head.version)
        self._documents.put(HISTORY, f"{version:08d}", data)

    def _without_clear_secrets(
        self, configuration: Configuration, *, dry_run: bool
    ) -> Configuration:
        plain = _plain(configuration)
        for kind in KINDS:
            for entity in plain[kind.name] if kind.secrets else ():
                # A database's `tls` is a word.
                places = [
                    place
                    for place in (entity.get("credentials"), entity.get("tls"))
                    if isinstance(place, dict)
                ]
                for given, field in product(places, _SECRET_FIELDS):
                    clear = given.pop(field, None)
                    if clear:
                        name = f"{kind.secrets}-{entity['name']}-{field}".replace(".", "_")
                        if not dry_run:
                            self._secrets.put(name, clear)
                        given[f"{field}_secret"] = name
        return _validated(plain)


def check(document: Mapping[str, Any], *, only: tuple[str, str] | None = None) -> Configuration:
    """The configuration that the document says.

    `only` (kind, name) has the faults of that one entity named relative to it, as its sender knows
    it. Raises: InvalidConfigurationError with every fault.
    """
    faults: list[Fault] = []
    configuration = Configuration()
    try:
        configuration = _validated(document)
    except ValidationError as error:
        faults += [
            field_fault(_path(fault["loc"]), fault)
            for fault in error.errors(include_url=False, include_input=False)
        ]
    faults += _refused_addresses(document)
    destinations = _names(document, "destinations")
    for kind in KINDS:
        seen: set[str] = set()
        for i, name in enumerate(_names(document, kind.name)):
            if name and name in seen:
                faults.append(Fault(f"{kind.name}[{i}].name", f"{name!r} is there twice"))
            seen.add(name)
        faults += kind.faults(document)
    crosswalks, schedules = outlines(document), readable(document)
    rulesets = document.get("rulesets")
    for i, ruleset in enumerate(rulesets if isinstance(rulesets, list | tuple) else ()):
        if isinstance(ruleset, Mapping):
            try:
                check_ruleset(
                    ruleset,
                    destinations=destinations,
                    crosswalks=crosswalks,
                    standardizers=_names(document, "standardizers"),
                    schedules=schedules,
                    study_rules=True,
                )
            except InvalidConfigurationError as error:
                faults += [
                    Fault(_below(f"rulesets[{i}]", f.path), f.message, f.hint) for f in error.faults
                ]
    settings = document.get("settings")
    route = settings.get("default_route") if isinstance(settings, Mapping) else None
    for i, name in enumerate(route if isinstance(route, list | tuple) else ()):
        if name not in destinations:
            faults.append(
                Fault(f"settings.default_route[{i}]", f"there is no destination {name!r}")
            )
    ports: dict[tuple[str, int], str] = {}
    for i, listener in enumerate(configuration.listeners):
        if not (listener.enabled and listener.port):
            continue
        other = ports.setdefault((listener.host, listener.port), listener.name)
        if other != listener.name:
            faults.append(Fault(f"listeners[{i}].port", f"{listener.port} is {other}'s already"))
    if faults:
        raise InvalidConfigurationError(*(_relative(f, document, only) for f in faults))
    return configuration


def _refused_addresses(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Where the document would have us connect to, and we do not (see `shared.addresses`)."""
    refuses = policy().refusal_of
    for kind in KINDS:
        for i, entity in enumerate(entities(document, kind.name)):
            # A listener's own host is where we listen; its peers are where we connect to.
            names = (
                entity if kind.is_remote else {name: entity.get(name) for name in _PEERS_OF_OURS}
            )
            for path, host in hosts_of(names, f"{kind.name}[{i}]"):
                reason = refuses(host)
                if reason is not None:
                    hint = "AXIOM_ALLOWED_NETWORKS names exceptions."
                    yield Fault(path, f"is refused: {reason}", hint)


def merged(document: Any, patch: Any) -> Any:
    """What a JSON Merge Patch makes of a document (RFC 7396 2); neither is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _validated(document: Mapping[str, Any]) -> Configuration:
    # As JSON, where strict types still let an array be a tuple and a word one of an enumeration.
    return Configuration.model_validate_json(json.dumps(document, default=str))


def _relative(fault: Fault, document: Mapping[str, Any], only: tuple[str, str] | None) -> Fault:
    if only is None:
        return fault
    kind, name = only
    for i, found in enumerate(_names(document, kind)):
        prefix = f"{kind}[{i}]"
        if found == name and fault.path.startswith(prefix):
            path = fault.path[len(prefix) :].lstrip(".")
            return Fault(path or "(document)", fault.message, fault.hint)
    return fault


def _find(
    plain: dict[str, Any], kind: str, name: str, unchanged: Callable[[dict[str, Any]], bool]
) -> None:
    for entity in plain[kind]:
        if entity["name"] == name:
            if not unchanged(entity):
                raise DocumentChangedError(kind, name)
            return
    raise DocumentMissingError(kind, name)


def _named(plain: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Raises: DocumentMissingError."""
    for entity in plain[kind]:
        if entity["name"] == name:
            found: dict[str, Any] = entity
            return found
    raise DocumentMissingError(kind, name)


def _reference(fault: Fault, document: Mapping[str, Any]) -> Reference:
    place = _PLACE.match(fault.path)
    if place is None:
        return Reference(fault.path.partition(".")[0], None, fault.path)
    kind, index, path = place.groups()
    return Reference(kind, _names(document, kind)[int(index)], path)


def _copied(plain: Any) -> Any:
    """A copy of plain values, made much faster than copy.deepcopy does."""
    return msgspec.json.decode(msgspec.json.encode(plain))


def _plain(configuration: Configuration) -> dict[str, Any]:
    """As it was written: defaults that nobody set stay away, the parts are always there."""
    plain = json.loads(configuration.model_dump_json(exclude_unset=True))
    return {**{kind: [] for kind in KIND_NAMES}, "settings": {}, **plain}


def _version(head: Document | None) -> int:
    return 0 if head is None else int(head.data["version"])


def _name_of(document: Mapping[str, Any]) -> str:
    name = document.get("name") if isinstance(document, Mapping) else None
    return name if isinstance(name, str) else ""


def _names(document: Mapping[str, Any], kind: str) -> list[str]:
    return [_name_of(entity) for entity in entities(document, kind)]


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for i, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
        elif i == 2 and location[0] in _OF_SEVERAL_TYPES:
            continue  # the union's tag, which the document does not have
        else:
            text += f".{part}" if text else part
    return text or "(document)"


def _below(prefix: str, path: str) -> str:
    if not path or path == "(document)":
        return prefix
    return prefix + path if path.startswith("[") else f"{prefix}.{path}"
