"""Instances that others have put where we look: a landing bucket, a DICOM store.

A notification says that there is something. It may come twice, late or never, and what it tells of
may be gone: who looks through buckets and stores besides (`poll_sources`) finds what was missed,
and equal bytes that come twice are delivered once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shared.errors import (
    CopyInFlightError,
    MalformedMessageError,
    ObjectMissingError,
    PermanentError,
    SourceRefusedError,
)
from shared.messages import Receipt, Source, Stage
from shared.pipeline.copies import COLLECTION as COPIES
from shared.pipeline.copies import copy_key
from shared.pipeline.dicom_store_name import DicomStoreName, StoredInstanceName
from shared.pipeline.envelope import PushedMessage
from shared.pipeline.exceptions import exception_from
from shared.pipeline.file_names import is_archive
from shared.pipeline.ports import Ports
from shared.ports import Buffer, Retrieved
from shared.times import timestamp

log = logging.getLogger(__name__)

COLLECTION = "ingested"

_FINALIZED = ("OBJECT_FINALIZE", "google.cloud.storage.object.v1.finalized")
_STORED = ("", "StoreInstances", "ImportDicomData")

Pieces = AbstractContextManager[Iterator[bytes]]
Members = AbstractContextManager[Iterator[Retrieved]]


class Landed(Struct, frozen=True):
    """An object in a landing bucket, one generation of it."""

    bucket: str
    name: str
    generation: int

    @property
    def key(self) -> str:
        """Tells it from all others, of all times."""
        return f"gs://{self.bucket}/{self.name}#{self.generation}"


class Places(Struct, frozen=True):
    """Where Instances are fetched from. Each call raises ObjectMissingError for what is gone, and
    StorageUnavailableError.

    `members` are those of an archive that may be Instances, one after the other, each with a `uid`
    that is its place in the archive; it raises SourceRefusedError for one that is none, and for a
    member that cannot be unpacked while that is read.
    """

    buckets: frozenset[str]
    object: Callable[[Landed], Pieces]
    members: Callable[[Landed], Members]
    instance: Callable[[StoredInstanceName], Pieces]


def take_object(pushed: PushedMessage, ports: Ports, places: Places) -> None:
    """Take in the object that a notification of Cloud Storage names: a file, whose name is
    no matter, or an archive of files.

    Raises: MalformedMessageError; TransientError.
    """
    if pushed.event_type not in ("", *_FINALIZED) or (
        pushed.attributes.get("eventType", _FINALIZED[0]) not in _FINALIZED
    ):
        return  # deletions, and changes of metadata
    landed = _landed(pushed)
    if landed.bucket not in places.buckets:
        raise MalformedMessageError("of a bucket that is none of AXIOM_LANDING_BUCKETS")
    source = Source(type="bucket", name=landed.bucket)
    if is_archive(landed.name):
        _take_members(landed, source, ports, places)
    else:
        _take_once(landed.key, lambda: places.object(landed), source, ports)


def take_stored(pushed: PushedMessage, ports: Ports, places: Places) -> None:
    """Take in the Instance that a notification of a DICOM store names, unless we stored it.

    Raises: MalformedMessageError; TransientError, also while we may be storing it right now.
    """
    attributes = pushed.attributes
    if attributes.get("action", "") not in _STORED:
        return
    try:
        stored = StoredInstanceName.parse(pushed.data.decode())
    except ValueError:
        raise MalformedMessageError("no notification of a DICOM store") from None
    if _is_ours(stored, ports):
        return
    # Which write it tells of, where the store says so: one after a deletion is another.
    write = attributes.get("versionId") or attributes.get("lastUpdatedTime") or pushed.message_id
    source = Source(type="google_healthcare", name=stored.store.dicom_store_id)
    _take_once(str(stored), lambda: places.instance(stored), source, ports, write=write)


def has_come(stored: StoredInstanceName, ports: Ports) -> bool:
    """True if a notification has brought the Instance, or it was us who stored it.

    Raises: CopyInFlightError while we may be storing it; StorageUnavailableError.
    """
    return ports.documents.get(COLLECTION, _key(str(stored))) is not None or _is_ours(stored, ports)


def take_in(source: Source, pieces: Iterator[Buffer], ports: Ports) -> Receipt | None:
    """Receive one Part 10 file as it streams; None if it is refused, which is recorded.

    Raises: TransientError.
    """
    with ports.receiver.begin(source) as staging:
        try:
            for piece in pieces:
                staging.write(piece)
        except PermanentError as error:
            staging.refuse(error)
            return None
        try:
            return staging.commit()
        except PermanentError:
            return None


def _take_members(landed: Landed, source: Source, ports: Ports, places: Places) -> None:
    """Each by itself: whoever ends in the middle goes on there."""
    if ports.documents.get(COLLECTION, _key(landed.key)) is not None:
        return
    try:
        with places.members(landed) as members:
            for member in members:
                chunks = partial(_as_they_are, member.chunks)
                _take_once(f"{landed.key}!{member.uid}", chunks, source, ports)
    except ObjectMissingError:
        log.info("it is gone already", extra={"source": source.name})
        return
    except SourceRefusedError as error:
        now = ports.clock.now()
        raised = exception_from(error, stage=Stage.RECEIVE, at=now, source=source)
        # One entry, however often it is told.
        ports.exceptions.publish(replace(raised, exception_id=_key(landed.key)[:24]))
    _mark(landed.key, ports)


def _take_once(
    what: str,
    fetch: Callable[[], AbstractContextManager[Iterator[Buffer]]],
    source: Source,
    ports: Ports,
    *,
    write: str = "",
) -> None:
    known = ports.documents.get(COLLECTION, _key(what))
    if known is not None and known.data.get("write", "") == write:
        return
    try:
        with fetch() as pieces:
            receipt = take_in(source, pieces, ports)
    except ObjectMissingError:
        log.info("it is gone already", extra={"source": source.name})
        return
    # Last: whoever ends before takes it in twice, and the same bytes are delivered once.
    _mark(what, ports, receipt_id=receipt.receipt_id if receipt else "", write=write)


@contextmanager
def _as_they_are(chunks: Iterator[Buffer]) -> Iterator[Iterator[Buffer]]:
    yield chunks


def _mark(what: str, ports: Ports, *, receipt_id: str = "", write: str = "") -> None:
    mark = {"at": timestamp(ports.clock.now()), "receipt_id": receipt_id, "write": write}
    ports.documents.put(COLLECTION, _key(what), mark)


def _key(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()


def _landed(pushed: PushedMessage) -> Landed:
    try:
        told: Mapping[str, Any] = json.loads(pushed.data) if pushed.data else {}
        bucket = pushed.attributes.get("bucketId") or told["bucket"]
        name = pushed.attributes.get("objectId") or told["name"]
        generation = int(pushed.attributes.get("objectGeneration") or told["generation"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MalformedMessageError("no notification of Cloud Storage") from None
    if not (isinstance(bucket, str) and isinstance(name, str)):
        raise MalformedMessageError("no notification of Cloud Storage")
    return Landed(bucket, name, generation)


def _is_ours(stored: StoredInstanceName, ports: Ports) -> bool:
    """True if a destination of ours is this store, or has it among its members, and has the
    Instance from us.

    Raises: CopyInFlightError while a Delivery is under way.
    """
    configured = ports.configuration.get().destinations
    stores = {
        destination.name
        for destination in configured
        if destination.type == "google_healthcare" and _is_at(destination.address, stored.store)
    }
    for destination in configured:
        # What went to a group is recorded under the group's name, whichever member took it.
        members = destination.members if destination.type == "group" else (destination.name,)
        if stores.isdisjoint(members):
            continue
        key = copy_key(destination.name, destination.address, stored.sop_instance_uid)
        known = ports.documents.get(COPIES, key)
        if known is None:
            continue
        confirmed = known.data["confirmed"]
        if confirmed is not None:
            taken_by = confirmed.get("answer", "").partition(": ")[0]
            if destination.type != "group" or taken_by in ("", *stores):
                return True
            continue
        claim = known.data["claim"]
        is_under_way = claim is not None and timestamp(ports.clock.now()) < claim["until"]
        if is_under_way and not claim["is_idle"]:
            raise CopyInFlightError(destination.name, stored.sop_instance_uid)
    return False


def _is_at(address: str, store: DicomStoreName) -> bool:
    return address.endswith(f"/{store}/dicomWeb")
