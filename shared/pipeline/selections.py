"""Which entries of the exception log, or which Instances, a filter means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from shared.errors import Category
from shared.messages import Stage
from shared.pipeline import instance_records
from shared.pipeline.exceptions import COLLECTION as EXCEPTIONS
from shared.pipeline.exceptions import OPEN, STATUSES, words_of
from shared.ports import Document, DocumentStore, Filter, Page
from shared.times import timestamp

Data = Mapping[str, Any]


class Kind(Struct, frozen=True):
    """What can be selected: where it is, how its filter's names are those of its fields, by which
    field it is ordered, and what a selection that names no state means.
    """

    collection: str
    fields: Mapping[str, str]
    state_field: str
    states_unless_named: tuple[str, ...]
    time_field: str
    words_of: Callable[[Data], list[str]]
    # The values there are, of the fields that have but a few.
    choices: Mapping[str, tuple[str, ...]]


def _words_of_instance(instance: Data) -> list[str]:
    names = ("receipt_id", "sop_class_uid", "sop_instance_uid", "study_instance_uid", "reason")
    return [*(str(instance[name]) for name in names), *map(str, instance["source"].values())]


_UIDS = {
    "study_uid": "study_instance_uid",
    "sop_instance_uid": "sop_instance_uid",
    "receipt_id": "receipt_id",
}
KINDS: Mapping[str, Kind] = {
    "exceptions": Kind(
        collection=EXCEPTIONS,
        fields={
            **{name: name for name in ("category", "status", "stage", "code", "destination")},
            **_UIDS,
        },
        state_field="status",
        states_unless_named=(OPEN,),
        time_field="last_at",
        words_of=words_of,
        choices={"status": STATUSES, "category": tuple(Category), "stage": tuple(Stage)},
    ),
    "instances": Kind(
        collection=instance_records.COLLECTION,
        fields={"state": "state", **_UIDS},
        state_field="state",
        states_unless_named=instance_records.WAITING,
        time_field="received_at",
        words_of=_words_of_instance,
        choices={"state": instance_records.STATES},
    ),
}


class Selection(Struct, frozen=True):
    """Documents of a kind, newest first, up to and including a time.

    `filter` holds names of the kind's fields with the value each must have, `since` (a time), and
    `q`, a text that must occur in the words. Empty values do not count.
    """

    kind: str
    filter: Mapping[str, str]
    until: str

    @classmethod
    def of(cls, kind: str, filter: Mapping[str, str], until: datetime) -> Selection:
        """Raises: ValueError for a name or a value that the kind does not have, or a time that is
        none.
        """
        known = {*KINDS[kind].fields, "since", "q"}
        unknown = sorted(set(filter) - known)
        if unknown:
            raise ValueError(f"no such filter: {', '.join(unknown)}; known: {sorted(known)}")
        given = {name: value for name, value in filter.items() if value}
        for name, choices in KINDS[kind].choices.items():
            if given.get(name, choices[0]) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}")
        if "since" in given:
            given["since"] = timestamp(_time(given["since"]))
        return cls(kind, given, timestamp(until))

    def page(
        self, documents: DocumentStore, limit: int, cursor: str | None, *, job: str = ""
    ) -> Page:
        """Some of them; a page may be short, as not everything can be asked of the store.

        With `job`, those that it has moved to another state already are there too.
        """
        kind = KINDS[self.kind]
        page = documents.query(
            kind.collection,
            self._filters(kind, of_any_state=bool(job)),
            order_by=kind.time_field,
            descending=True,
            limit=limit,
            cursor=cursor,
        )
        needle = self.filter.get("q", "").casefold()
        found = [
            one
            for one in page.documents
            if _has(needle, kind.words_of(one.data))
            and (not job or self._is_of_state(kind, one.data) or was_done(one.data, job))
        ]
        return Page(found, page.cursor)

    def count(self, documents: DocumentStore) -> int:
        """How many there are."""
        kind = KINDS[self.kind]
        if "q" not in self.filter:
            return documents.count(kind.collection, self._filters(kind))
        return sum(1 for _ in self._all(documents))

    def _all(self, documents: DocumentStore) -> Iterator[Document]:
        cursor = None
        while True:
            page = self.page(documents, 500, cursor)
            yield from page.documents
            cursor = page.cursor
            if cursor is None:
                return

    def _is_of_state(self, kind: Kind, data: Data) -> bool:
        named = self.filter.get(kind.state_field)
        return data[kind.state_field] in ([named] if named else kind.states_unless_named)

    def _filters(self, kind: Kind, *, of_any_state: bool = False) -> list[Filter]:
        filters = [
            Filter(kind.fields[name], "==", value)
            for name, value in self.filter.items()
            if name in kind.fields and not (of_any_state and name == kind.state_field)
        ]
        if kind.state_field not in self.filter and not of_any_state:
            filters.append(Filter(kind.state_field, "in", list(kind.states_unless_named)))
        if "since" in self.filter:
            filters.append(Filter(kind.time_field, ">=", self.filter["since"]))
        filters.append(Filter(kind.time_field, "<=", self.until))
        return filters


def was_done(data: Data, job: str) -> bool:
    """True if that job has dealt with the document."""
    return any(step.get("job") == job for step in data.get("history", []))


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _has(needle: str, words: list[str]) -> bool:
    return not needle or any(needle in word.casefold() for word in words)
