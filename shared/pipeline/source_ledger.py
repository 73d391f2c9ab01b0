"""What a source has given already: one document for each of its Studies.

It decides what is new, by Instance and not by date. An Instance counts as given once it is
received durably; the document may lag behind that by a few, which come twice then, and never ahead.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from shared.errors import DocumentChangedError, DocumentExistsError
from shared.messages import Stage
from shared.pipeline.exceptions import COLLECTION as EXCEPTIONS
from shared.pipeline.instance_records import COLLECTION as INSTANCES
from shared.ports import Clock, DocumentStore, Filter, FoundInstance
from shared.times import timestamp

COLLECTION = "source-ledger"

_MARK_BYTES = 8
_BEFORE_DELIVERY = (Stage.RECEIVE, Stage.VALIDATE, Stage.RULES)
# Written at least so often while a source shows the Study, so that it is not taken for forgotten.
_TOUCH_S = 86400.0


class Entry(Struct):
    """One Study of one source. `seen` holds a mark of each Instance that was given."""

    key: str
    source: str
    study: str
    seen: set[bytes] = field(default_factory=set)
    # How often in a row an Instance that is shown was not given.
    failed: dict[str, int] = field(default_factory=dict)
    # Given, and not taken: nobody else may have it.
    refused: set[str] = field(default_factory=set)
    # What the source showed when it was last listed, and when that was.
    signature: str = ""
    listed_at: str = ""
    # The Study is left alone until then.
    retry_at: str = ""
    # Set while Instances are fetched: when that began.
    begun_at: str = ""
    checked_at: str = ""
    version: str | None = None

    def is_new(self, instance: FoundInstance) -> bool:
        """True if it was not given yet, as it is now."""
        return mark(instance) not in self.seen

    def gave(self, instance: FoundInstance) -> None:
        """It is received durably, or was refused for what it is."""
        self.seen.add(mark(instance))
        self.failed.pop(instance.uid, None)

    def failed_again(self, instance: FoundInstance) -> int:
        """It was not given; how often that was so."""
        self.failed[instance.uid] = self.failed.get(instance.uid, 0) + 1
        return self.failed[instance.uid]

    def forget(self, instances: Iterable[FoundInstance]) -> None:
        """They are gone from the source."""
        self.seen -= {mark(instance) for instance in instances}


def mark(instance: FoundInstance) -> bytes:
    """Stands for an Instance as it is now."""
    text = f"{instance.uid}\0{instance.version}".encode()
    return hashlib.blake2b(text, digest_size=_MARK_BYTES).digest()


class Ledger:
    """The ledger of one source at one address."""

    def __init__(
        self,
        documents: DocumentStore,
        clock: Clock,
        source: str,
        address: str,
        *,
        ae_title: str = "",
    ) -> None:
        """`ae_title` is what the source calls itself when it sends to a listener of ours."""
        self._documents, self._clock = documents, clock
        self._source, self._address, self._ae_title = source, address, ae_title

    def read(self, study: str) -> Entry:
        """What is known of a Study; an empty entry for one that is new."""
        text = f"{self._source}\0{self._address}\0{study}".encode()
        key = hashlib.sha256(text).hexdigest()[:32]
        found = self._documents.get(COLLECTION, key)
        if found is None:
            return Entry(key, self._source, study)
        data = found.data
        packed = base64.b64decode(data["seen"])
        return Entry(
            key,
            self._source,
            study,
            {packed[i : i + _MARK_BYTES] for i in range(0, len(packed), _MARK_BYTES)},
            dict(data["failed"]),
            set(data["refused"]),
            data["signature"],
            data["listed_at"],
            data["retry_at"],
            data["begun_at"],
            data["checked_at"],
            found.version,
        )

    def write(self, entry: Entry) -> None:
        """Keep it. If somebody else has written meanwhile, what either was given counts."""
        entry.checked_at = timestamp(self._clock.now())
        while True:
            try:
                if entry.version is None:
                    stored = self._documents.create(COLLECTION, entry.key, _document(entry))
                else:
                    stored = self._documents.replace(
                        COLLECTION, entry.key, _document(entry), entry.version
                    )
            except (DocumentChangedError, DocumentExistsError):
                other = self.read(entry.study)
                entry.seen |= other.seen
                entry.version = other.version
            else:
                entry.version = stored.version
                return

    def touch(self, entry: Entry) -> None:
        """Keep it from being forgotten, as the source shows the Study still."""
        if self._is_old(entry.checked_at):
            self.write(entry)

    def count(self, study: str) -> int:
        """How many Instances of a Study are decided, from wherever they came."""
        where = [Filter("study_instance_uid", "==", study)]
        return sum(self._documents.count(one, where) for one in (INSTANCES, EXCEPTIONS))

    def arrived(self, study: str, since: str) -> dict[str, bool]:
        """SOP Instance UIDs of a Study that came from this source since then, as far as they are
        decided; False for one that was refused.
        """
        found: dict[str, bool] = {}
        for data in self._all(EXCEPTIONS, study):
            if (
                self._is_ours(data.get("source"))
                and data["last_at"] >= since
                and data["stage"] in _BEFORE_DELIVERY
            ):
                found[data["sop_instance_uid"]] = False
        for data in self._all(INSTANCES, study):
            if self._is_ours(data["source"]) and data["received_at"] >= since:
                found[data["sop_instance_uid"]] = True
        return found

    def _is_ours(self, source: Mapping[str, Any] | None) -> bool:
        """True if an Instance came from here. Not every peer says whose request it moves for."""
        if source is None:
            return False
        caller = str(source["calling_ae_title"]).strip()
        return source["name"] == self._source or bool(caller and caller == self._ae_title)

    def _all(self, collection: str, study: str) -> Iterator[Mapping[str, Any]]:
        where = [Filter("study_instance_uid", "==", study)]
        cursor = None
        while True:
            page = self._documents.query(collection, where, limit=500, cursor=cursor)
            yield from (document.data for document in page.documents)
            cursor = page.cursor
            if cursor is None:
                return

    def _is_old(self, checked_at: str) -> bool:
        if not checked_at:
            return False
        checked = datetime.fromisoformat(checked_at)
        return (self._clock.now() - checked).total_seconds() > _TOUCH_S


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "source": entry.source,
        "study": entry.study,
        "seen": base64.b64encode(b"".join(sorted(entry.seen))).decode(),
        "count": len(entry.seen),
        "failed": entry.failed,
        "refused": sorted(entry.refused),
        "signature": entry.signature,
        "listed_at": entry.listed_at,
        "retry_at": entry.retry_at,
        "begun_at": entry.begun_at,
        "checked_at": entry.checked_at,
    }
