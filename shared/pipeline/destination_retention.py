"""Deleting at destinations of ours what they are to keep for so many days only.

Once a day each such destination is looked through. What we know of a copy is forgotten before the
copy is deleted, and nobody delivers there meanwhile: whoever is killed in between leaves bytes that
the next round deletes, and never a record of bytes that are not there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

from shared.errors import AxiomError, StorageUnavailableError
from shared.pipeline.copies import COLLECTION as COPIES
from shared.pipeline.copies import Copies, copy_key
from shared.ports import Document, KeepingDestination
from shared.times import timestamp

if TYPE_CHECKING:
    from shared.config.entities import AnyDestination
    from shared.pipeline.ports import Ports

log = logging.getLogger(__name__)

COLLECTION = "destination-retention"

_EVERY = timedelta(days=1)
_ANSWER_S = 60.0


def sweep_destinations(ports: Ports) -> Iterator[int]:
    """How many Instances each step deleted, 0 or 1. A destination that fails is left for later.

    Raises: StorageUnavailableError.
    """
    for entity in ports.configuration.get().destinations:
        days = entity.storage_policy.retain_days
        now = ports.clock.now()
        if days is None or not entity.enabled or not _is_due(entity, now, ports):
            continue
        try:
            yield from _sweep(entity, now - timedelta(days=days), ports)
        except StorageUnavailableError:
            raise
        except AxiomError as error:
            log.warning(
                "cannot delete what a destination is to keep no longer",
                extra={"destination": entity.name, "code": error.code},
            )
        else:
            data = {"destination": entity.name, "looked_at": timestamp(now)}
            ports.documents.put(COLLECTION, entity.name, data)


def _is_due(entity: AnyDestination, now: datetime, ports: Ports) -> bool:
    known = ports.documents.get(COLLECTION, entity.name)
    return known is None or known.data["looked_at"] <= timestamp(now - _EVERY)


def _sweep(entity: AnyDestination, before: datetime, ports: Ports) -> Iterator[int]:
    copies = Copies(ports.documents, ports.clock)
    opened = ports.destinations.open(entity.name, timeout_s=_ANSWER_S)
    with closing(cast(KeepingDestination, opened)) as destination:
        for kept in destination.taken_before(before):
            held = None if kept is None else _vacate(entity, kept.sop_instance_uid, copies, ports)
            if kept is None or held is None:
                yield 0
                continue
            kept.delete()
            for document in held:
                copies.vacated(document)
            yield 1


def _vacate(
    entity: AnyDestination, sop_instance_uid: str, copies: Copies, ports: Ports
) -> list[Document] | None:
    """Forget that the destination has the Instance, also where a group gave it to it, and have
    Deliveries of it wait; None while one is under way.
    """
    held = []
    for one in ports.configuration.get().destinations:
        if one != entity and not (one.type == "group" and entity.name in one.members):
            continue
        key = copy_key(one.name, one.address, sop_instance_uid)
        known = ports.documents.get(COPIES, key)
        if known is None:
            continue
        confirmed = known.data["confirmed"] or {}
        if one != entity and not confirmed.get("answer", "").startswith(f"{entity.name}: "):
            continue
        document = copies.vacate(key)
        if document is None:
            return None
        held.append(document)
    return held
