"""The configuration, as the cloud has it, on the disk of a gateway on premises.

With it what reception needs besides: the secrets that its listeners name, and what answers queries
there; the users and their keys, where callers are asked who they are.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from shared.config.entities import Configuration
from shared.config.service import COLLECTION, HEAD
from shared.errors import AxiomError, ObjectExistsError, SecretMissingError
from shared.identity.directory import ROLES, USERS
from shared.identity.keys import COLLECTION as API_KEYS
from shared.ports import Clock, Document, DocumentStore, ObjectStore, SecretStore

log = logging.getLogger(__name__)

# How soon a change is noticed; each look is one small document.
_LOOK_EVERY_S = 10.0
# A secret, or a user, may change while the configuration stays.
_SECRETS_EVERY_S = 600.0


class Mirror:
    """Keeps the copy fresh; used from one thread."""

    def __init__(
        self,
        objects: ObjectStore,
        documents: DocumentStore,
        secrets: SecretStore,
        *,
        here_objects: ObjectStore,
        here_documents: DocumentStore,
        here_secrets: SecretStore,
        clock: Clock,
    ) -> None:
        """The first three are the cloud's."""
        self._objects, self._documents, self._secrets = objects, documents, secrets
        self._here_objects, self._here_documents = here_objects, here_documents
        self._here_secrets, self._clock = here_secrets, clock
        self._secrets_at_s = float("-inf")
        # In words what keeps a newer configuration, or a part of it, from being followed; "" for
        # nothing.
        self.fault = ""

    @property
    def version(self) -> int:
        """The version that is kept; 0 before the first one came."""
        known = self._here_documents.get(COLLECTION, HEAD)
        return int(known.data["version"]) if known else 0

    def run(self, stopped: threading.Event) -> None:
        """Look after it until the event is set."""
        while True:
            try:
                self.look()
            except AxiomError as error:
                log.warning("the configuration cannot be asked for", extra={"reason": str(error)})
            except Exception:
                log.exception("the configuration cannot be kept")
            if stopped.wait(_LOOK_EVERY_S):
                return

    def look(self) -> None:
        """Take over what has changed. What cannot be read here is left: the last one goes on. A
        secret that is not there keeps out who needs it, and nobody else.

        Raises: StorageUnavailableError.
        """
        head = self._documents.get(COLLECTION, HEAD)
        if head is None:
            return
        known = self._here_documents.get(COLLECTION, HEAD)
        now_s = self._clock.monotonic_s()
        is_new = known is None or known.data != head.data
        if not is_new and now_s - self._secrets_at_s < _SECRETS_EVERY_S:
            return
        name = str(head.data["object"])
        store = self._objects if is_new else self._here_objects
        with store.open(name) as reader:
            document = reader.read_at(0, reader.size)
        try:
            configuration = Configuration.model_validate_json(document)
        except ValidationError as error:
            self.fault = f"version {head.data['version']} of the configuration is too new"
            log.error(self.fault, extra={"faults": error.error_count()})
            return
        missing = self._fetch_secrets(configuration)
        if any(one.user_identity for one in configuration.listeners):
            for collection in (USERS, ROLES, API_KEYS):
                self._copy(collection)
        # Once it is there nobody wants to wait.
        self._secrets_at_s = float("-inf") if missing else now_s
        if is_new:
            self._keep(name, document, head.data)
        self.fault = f"secrets that are not there: {', '.join(missing)}" if missing else ""

    def _keep(self, name: str, document: bytes, head: Mapping[str, Any]) -> None:
        with self._here_objects.create(name) as writer:
            writer.write(document)
            with suppress(ObjectExistsError):  # kept, and its head was not
                writer.commit()
        before = self._here_documents.get(COLLECTION, HEAD)
        self._here_documents.put(COLLECTION, HEAD, head)
        # The one before stays too: another process may be about to read it.
        stay = {name, str(before.data["object"]) if before else name}
        for other in list(self._here_objects.list("configuration/")):
            if other not in stay:
                self._here_objects.delete(other)
        log.info("a configuration is kept", extra={"version": head["version"]})

    def _copy(self, collection: str) -> None:
        """Have here what is there."""
        there = {one.key: one for one in _all(self._documents, collection)}
        for known in list(_all(self._here_documents, collection)):
            if known.key not in there:
                self._here_documents.delete(collection, known.key)
            elif known.data == there[known.key].data:
                del there[known.key]
        for one in there.values():
            self._here_documents.put(collection, one.key, one.data)

    def _fetch_secrets(self, configuration: Configuration) -> list[str]:
        """The names of those that are not there."""
        missing = []
        for name in sorted(secrets_of(configuration)):
            try:
                value = self._secrets.get(name)
            except SecretMissingError:
                missing.append(name)
                continue
            try:
                if self._here_secrets.get(name) == value:
                    continue
            except SecretMissingError:
                pass
            self._here_secrets.put(name, value)
        return missing


def secrets_of(configuration: Configuration) -> set[str]:
    """The names of the secrets that reception, and queries of its listeners, need."""
    listeners = configuration.listeners
    wanted: list[Any] = list(listeners)
    if any(one.query_retrieve for one in listeners):
        wanted += [*configuration.destinations, *configuration.sources]
    if any(one.worklist for one in listeners):
        wanted += [*configuration.worklists, *configuration.crosswalk_sources]
    passcodes = {
        secret
        for one in listeners
        if one.user_identity is not None
        for secret in one.user_identity.passcodes.values()
    }
    return passcodes | {
        name for entity in wanted for name in _named(entity.model_dump(mode="json"))
    }


def _all(documents: DocumentStore, collection: str) -> Iterator[Document]:
    cursor = None
    while True:
        page = documents.query(collection, limit=1000, cursor=cursor)
        yield from page.documents
        cursor = page.cursor
        if cursor is None:
            return


def _named(value: Any) -> Iterator[str]:
    """The values of all fields whose names end as those of secrets do."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if key.endswith("_secret") and isinstance(one, str):
                yield one
            else:
                yield from _named(one)
    elif isinstance(value, list):
        for one in value:
            yield from _named(one)
