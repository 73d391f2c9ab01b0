"""What happened to an Instance, in the order of time: from its documents, without Values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from shared.errors import DocumentMissingError
from shared.pipeline import studies
from shared.pipeline.delivery_records import COLLECTION as DELIVERIES
from shared.pipeline.exceptions import COLLECTION as EXCEPTIONS
from shared.pipeline.instance_records import COLLECTION as INSTANCES
from shared.ports import DocumentStore, Filter, Page

# One Instance is shown with so many of its Deliveries and entries of the exception log.
_MOST: Final = 500

_NAMES: Final = (
    "receipt_id",
    "trace_id",
    "sop_class_uid",
    "sop_instance_uid",
    "series_instance_uid",
    "transfer_syntax_uid",
    "state",
    "reason",
)

_Data = Mapping[str, Any]


class Followed(Struct, frozen=True):
    """What became of one Instance: its Deliveries that were tried, and its exceptions."""

    deliveries: Sequence[_Data]
    exceptions: Sequence[_Data]


def follow(receipt_id: str, documents: DocumentStore) -> Followed:
    """What is known of the Instance beside its own document."""

    def found(collection: str, order_by: str) -> list[_Data]:
        where = [Filter("receipt_id", "==", receipt_id)]
        page = documents.query(collection, where, order_by=order_by, limit=_MOST)
        return [document.data for document in page.documents]

    return Followed(found(DELIVERIES, "updated_at"), found(EXCEPTIONS, "last_at"))


def timeline(instance: _Data | None, followed: Followed) -> list[dict[str, Any]]:
    """The steps: `at`, `step` and what there is to say of it. Of a Delivery, and of an error that
    came more than once, the last; of an Instance that was decided anew, the last decision.
    """
    steps: list[dict[str, Any]] = []
    if instance is not None:
        steps += [
            {
                "at": instance["received_at"],
                "step": "received",
                "source": instance["source"]["name"],
            },
            {
                "at": instance["decided_at"],
                "step": "decided",
                "state": instance["state"],
                "reason": instance["reason"],
                "rules": list(instance["matched_rules"]),
                "destinations": [plan["destination"] for plan in instance["deliveries"]],
            },
        ]
        steps += [_by_a_person(step) for step in instance.get("history", ())]
    for delivery in followed.deliveries:
        said = _said(delivery, "destination", "state", "attempts", "code", "error")
        steps.append({"at": delivery["updated_at"], "step": "delivery", **said})
    for entry in followed.exceptions:
        said = _said(entry, "id", "stage", "code", "message", "destination", "status")
        steps.append({"at": entry["last_at"], "step": "exception", **said})
        steps += [
            {**_by_a_person({**step, "action": step["status"]}), "id": entry["id"]}
            for step in entry["history"]
        ]
    return sorted(steps, key=lambda step: str(step["at"]))


def study(study_instance_uid: str, documents: DocumentStore) -> dict[str, Any]:
    """How many of its Instances were decided about, how many exceptions there are, and how far each
    study and series rule is with it.

    Raises: DocumentMissingError if nothing is known of it.
    """
    where = [Filter("study_instance_uid", "==", study_instance_uid)]
    counts = {name: documents.count(name, where) for name in (INSTANCES, EXCEPTIONS)}
    try:
        rules = studies.of_study(documents, study_instance_uid)
    except DocumentMissingError:
        if not any(counts.values()):
            raise
        rules = []
    return {
        "study_instance_uid": study_instance_uid,
        **counts,
        "rules": [studies.shown(documents, rule.data) for rule in rules],
    }


def instances(study_instance_uid: str, documents: DocumentStore) -> Iterator[dict[str, Any]]:
    """All Instances of a Study that were decided about, as `followed` shows them."""
    where = [Filter("study_instance_uid", "==", study_instance_uid)]
    for document in studies.all_documents(documents, INSTANCES, where, order_by="received_at"):
        yield followed(document.data, documents)


def page_of_instances(
    study_instance_uid: str, documents: DocumentStore, *, limit: int, cursor: str | None
) -> Page:
    """So many of them, in the order in which they came."""
    where = [Filter("study_instance_uid", "==", study_instance_uid)]
    return documents.query(INSTANCES, where, order_by="received_at", limit=limit, cursor=cursor)


def followed(instance: _Data, documents: DocumentStore) -> dict[str, Any]:
    """An Instance in a few words, with its timeline."""
    known = {name: instance[name] for name in _NAMES}
    return {**known, "timeline": timeline(instance, follow(instance["receipt_id"], documents))}


def _said(document: _Data, *names: str) -> dict[str, Any]:
    return {name: document[name] for name in names if document.get(name)}


def _by_a_person(step: _Data) -> dict[str, Any]:
    said = {name: value for name, value in step.items() if name not in ("at", "action", "status")}
    return {"at": step["at"], "step": step["action"], **said}
