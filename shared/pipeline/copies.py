"""Which bytes a destination has under a SOP Instance UID, and who is delivering there now.

C-STORE cannot ask a peer what it has, so our own records decide. There is one document for each
destination and SOP Instance UID, changed by compare-and-set alone:

- `confirmed`: what the destination has confirmed, or nothing yet.
- `claim`: the Delivery under way. Of several at once one has the claim and the others wait, so no
  two of them can both believe that their bytes are the ones that are there. A claim ends by itself,
  for its holder may have died; one that ran out is taken over, and its late holder finds out when
  it wants to confirm.
- `is_uncertain`: other bytes than the claim's may be there, because an answer was lost.

Equal copies are equal but for their Original Attributes, which hold the time of their Changes. So
the claim keeps those that it was made with, and whoever takes it up sends the very same bytes: the
destination may have them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from shared.dicom import original_attributes
from shared.dicom.changes import Change, Transcoding
from shared.errors import (
    AxiomError,
    CopyInFlightError,
    DocumentChangedError,
    DocumentExistsError,
)
from shared.messages import Receipt
from shared.ports import Clock, Document, DocumentStore, Put
from shared.times import timestamp

COLLECTION = "copies"

# Longer than nearly every delivery takes, and how long others wait for one whose process died.
CLAIM_S = 600.0


class Copy(Struct, frozen=True):
    """An Instance as one destination is to have it."""

    destination: str
    # Where the destination is: under the same name another peer, or folder, has nothing yet.
    address: str
    sop_instance_uid: str  # as the destination sees it
    fingerprint: str
    receipt_id: str
    received_at: str
    original_attributes: Change | None = None  # made after all other Changes

    @property
    def key(self) -> str:
        """The key of its document."""
        return copy_key(self.destination, self.address, self.sop_instance_uid)


class Claimed(Struct, frozen=True):
    """The copy is to be sent, and then confirmed or released.

    `redelivery`: these very bytes, and no others, may be there already. `original_attributes` are
    the ones to send it with: the copy's own, or those of an earlier attempt that may have arrived.
    """

    redelivery: bool
    original_attributes: Change | None = None
    # What the destination answered to what it has and is to give way; "" if there is nothing.
    earlier_answer: str = ""


class Present(Struct, frozen=True):
    """Equal bytes are confirmed, by `receipt_id`: nothing is to be sent."""

    receipt_id: str


class Superseded(Struct, frozen=True):
    """Other bytes are confirmed that were received later, and the newest count."""

    receipt_id: str


class Conflict(Struct, frozen=True):
    """Other bytes are confirmed, and they are to stay."""

    receipt_id: str
    fingerprint: str


def copy_key(destination: str, address: str, sop_instance_uid: str) -> str:
    """The key of the document of a copy. A destination's name has no colon."""
    place = hashlib.sha256(address.encode()).hexdigest()[:8]
    return f"{destination}:{place}:{sop_instance_uid}"


def fingerprint(
    receipt: Receipt, changes: Sequence[Change], transcoding: Transcoding | None = None
) -> str:
    """Equal for equal data sets with equal Changes and Transfer Syntax: 64 hex digits.

    Original Attributes are left out: they tell of the other Changes, and when these were made.
    """
    file = receipt.file
    digest = hashlib.sha256((file.data_set_mark or f"{file.size}:{file.crc32c}").encode())
    for change in changes:
        if change.by != original_attributes.BY:
            value = None if change.new_element is None else change.new_element.hex()
            digest.update(f"\n{change.path}|{change.vr}|{change.position}|{value}".encode())
    if transcoding is not None and transcoding.transfer_syntax_uid != receipt.transfer_syntax_uid:
        digest.update(f"\n{transcoding.transfer_syntax_uid}".encode())
    return digest.hexdigest()


class Copies:
    """The documents."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents, self._clock = documents, clock
        self._own: dict[str, Document] = {}  # as they were claimed here

    def claim(
        self, copy: Copy, *, replaces: bool = False, corrects: bool = False
    ) -> Claimed | Present | Superseded | Conflict:
        """Find out what is to be done about `copy`; `replaces` lets newer bytes replace older,
        `corrects` other bytes of the same received file.

        Raises: CopyInFlightError while another Delivery has the claim.
        """
        # Nearly always there is none yet, which writing one finds out as well as reading.
        known: Document | None = None
        while True:
            data = known.data if known else _NOTHING
            confirmed = data["confirmed"]
            if confirmed is not None:
                if confirmed["fingerprint"] == copy.fingerprint:
                    return Present(confirmed["receipt_id"])
                is_own = confirmed["receipt_id"] == copy.receipt_id
                if not (replaces or (corrects and is_own)):
                    return Conflict(confirmed["receipt_id"], confirmed["fingerprint"])
                if _age(confirmed) > (copy.received_at, copy.receipt_id):
                    return Superseded(confirmed["receipt_id"])
            earlier = data["claim"]
            is_same = earlier is not None and earlier["fingerprint"] == copy.fingerprint
            is_ours = is_same and earlier["receipt_id"] == copy.receipt_id
            now = self._clock.now()
            # Equal bytes need not wait for an attempt that has ended.
            is_free = is_ours or (is_same and earlier["is_idle"])
            if earlier is not None and not is_free and _runs(earlier, now):
                raise CopyInFlightError(copy.destination, copy.sop_instance_uid)
            is_uncertain = data["is_uncertain"] or (earlier is not None and not is_same)
            told = (
                msgspec.convert(earlier.get("original_attributes"), Change | None)
                if earlier is not None and is_same
                else copy.original_attributes
            )
            claimed = {
                "destination": copy.destination,
                "sop_instance_uid": copy.sop_instance_uid,
                "confirmed": confirmed,
                "claim": {
                    "fingerprint": copy.fingerprint,
                    "receipt_id": copy.receipt_id,
                    "until": timestamp(now + timedelta(seconds=CLAIM_S)),
                    "is_idle": False,
                    "original_attributes": msgspec.to_builtins(told),
                },
                "is_uncertain": is_uncertain,
            }
            document = self._changed(copy, known, claimed)
            if document is not None:
                redelivery = is_same and not is_uncertain and confirmed is None
                self._own[copy.key] = document
                earlier_answer = "" if confirmed is None else confirmed.get("answer", "")
                return Claimed(redelivery, told, earlier_answer)
            known = self._documents.get(COLLECTION, copy.key)

    def confirm(self, copy: Copy, answer: str = "", *, also: Sequence[Put] = ()) -> None:
        """The destination has confirmed `copy`, which was claimed, in these words. `also` is
        recorded with it.

        Raises: CopyInFlightError if others took the claim over meanwhile: which bytes are there
        now is open, and the Delivery is to begin anew.
        """
        # Nearly always nobody has changed it since it was claimed, so it need not be read again.
        known = self._own.pop(copy.key, None) or self._documents.get(COLLECTION, copy.key)
        while True:
            data = known.data if known else _NOTHING
            found = data["claim"] or data["confirmed"]
            if found is not None and found["fingerprint"] != copy.fingerprint:
                raise CopyInFlightError(copy.destination, copy.sop_instance_uid)
            settled = {
                "destination": copy.destination,
                "sop_instance_uid": copy.sop_instance_uid,
                "confirmed": {
                    "fingerprint": copy.fingerprint,
                    "receipt_id": copy.receipt_id,
                    "received_at": copy.received_at,
                    "at": timestamp(self._clock.now()),
                    "answer": answer,
                },
                "claim": None,
                "is_uncertain": False,
            }
            if self._changed(copy, known, settled, also) is not None:
                return
            known = self._documents.get(COLLECTION, copy.key)

    def forget(self, copy: Copy) -> None:
        """The destination has lost what it had: the next copy is delivered again."""
        self._documents.delete(COLLECTION, copy.key)

    def vacate(self, key: str) -> Document | None:
        """Forget what is confirmed and have every Delivery wait until `vacated`, or until a claim
        would have ended by itself; None, and nothing is changed, while one is under way.
        """
        known = self._documents.get(COLLECTION, key)
        if known is None or known.data["claim"] is not None:
            return None
        held = {
            **known.data,
            "confirmed": None,
            "claim": {
                "fingerprint": "",
                "receipt_id": "",
                "until": timestamp(self._clock.now() + timedelta(seconds=CLAIM_S)),
                "is_idle": False,
                "original_attributes": None,
            },
            # Should its holder die, what was there may be there still.
            "is_uncertain": True,
        }
        with suppress(DocumentChangedError):
            return self._documents.replace(COLLECTION, key, held, known.version)
        return None

    def vacated(self, held: Document) -> None:
        """The destination has nothing any more."""
        with suppress(DocumentChangedError):  # it took so long that somebody else is at work
            self._documents.delete(COLLECTION, held.key, held.version)

    def release(self, copy: Copy) -> None:
        """It is certain that nothing of `copy` is stored: others may deliver at once.

        Never raises: a claim that could not be given up ends by itself.
        """
        with suppress(AxiomError):
            known = self._claimed(copy)
            if known is None:
                return
            if known.data["confirmed"] is None and not known.data["is_uncertain"]:
                self._documents.delete(COLLECTION, copy.key, known.version)
            else:
                self._changed(copy, known, {**known.data, "claim": None})

    def rest(self, copy: Copy, *, gives_up: bool) -> None:
        """The attempt has ended, and `copy` may be stored: equal bytes may be tried at once, others
        only if nobody tries this one again (`gives_up`). Never raises, as `release`.
        """
        with suppress(AxiomError):
            known = self._claimed(copy)
            if known is not None:
                claim = {**known.data["claim"], "is_idle": True}
                if gives_up:
                    claim["until"] = timestamp(self._clock.now())
                self._changed(copy, known, {**known.data, "claim": claim})

    def _claimed(self, copy: Copy) -> Document | None:
        """The document, if the claim is the one of `copy`."""
        known = self._documents.get(COLLECTION, copy.key)
        claim = known.data["claim"] if known else None
        if claim is None:
            return None
        is_ours = (claim["fingerprint"], claim["receipt_id"]) == (copy.fingerprint, copy.receipt_id)
        return known if is_ours else None

    def _changed(
        self,
        copy: Copy,
        known: Document | None,
        data: Mapping[str, Any],
        also: Sequence[Put] = (),
    ) -> Document | None:
        """The document as it is then; None if somebody else was faster."""
        try:
            if known is None:
                return self._documents.create(COLLECTION, copy.key, data, also=also)
            return self._documents.replace(COLLECTION, copy.key, data, known.version, also=also)
        except (DocumentExistsError, DocumentChangedError):
            return None


_NOTHING: Mapping[str, Any] = {"confirmed": None, "claim": None, "is_uncertain": False}


def _runs(claim: Mapping[str, Any], now: datetime) -> bool:
    """False once its time is over. No claim ends later than `CLAIM_S` from now: one that seems to
    was made before the clock was set back.
    """
    latest = timestamp(now + timedelta(seconds=CLAIM_S))
    return bool(timestamp(now) < claim["until"] <= latest)


def _age(confirmed: Mapping[str, Any]) -> tuple[str, str]:
    return confirmed["received_at"], confirmed["receipt_id"]
