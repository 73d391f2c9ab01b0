"""What the system has on record of an Instance: the decision, and each Delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.ports import Filter

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

# Held until a delivery is tried for the first time.
PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Record:
    """One received Instance that rules have decided about, and its Deliveries by destination."""

    instance: Mapping[str, Any]
    deliveries: Mapping[str, Mapping[str, Any]]

    @property
    def destinations(self) -> Sequence[str]:
        """Where it goes, in the order decided."""
        return [plan["destination"] for plan in self.instance["deliveries"]]

    @property
    def changes(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The Changes for each destination."""
        return {plan["destination"]: plan["changes"] for plan in self.instance["deliveries"]}

    def transcoding(self, destination: str) -> Mapping[str, Any] | None:
        """What is said of the Transfer Syntax for the destination."""
        plans = self.instance["deliveries"]
        return next((p.get("transcoding") for p in plans if p["destination"] == destination), None)

    def delivery(self, destination: str) -> Mapping[str, Any] | None:
        """How delivery went there so far; None before the first try."""
        return self.deliveries.get(destination)

    def state_of(self, destination: str) -> str:
        """The Delivery's state in one word."""
        delivery = self.delivery(destination)
        return PENDING if delivery is None else str(delivery["state"])

    @property
    def left_at(self) -> Sequence[str]:
        """Destinations that have it by an earlier decision, and are sent nothing by this one."""
        from shared.pipeline.delivery_records import left_at

        told: Sequence[str] | None = self.instance.get("left_at")  # by the API
        return left_at(self.instance, self.deliveries.values()) if told is None else told

    def as_json(self) -> dict[str, Any]:
        """For `--json`: the encoded Data Elements of the Changes left out."""
        plans = [
            {
                "destination": name,
                "state": self.state_of(name),
                **{k: v for k, v in (self.delivery(name) or {}).items() if k != "destination"},
                "changes": [
                    {k: change.get(k) for k in ("path", "vr", "old", "new", "by")}
                    for change in self.changes[name]
                ],
                "transcoding": self.transcoding(name),
            }
            for name in self.destinations
        ]
        instance = {k: v for k, v in self.instance.items() if k not in ("changes", "otherwise")}
        return {**instance, "deliveries": plans, "left_at": list(self.left_at)}


def record_of(ports: Ports, receipt_id: str) -> Record | None:
    """The record of one receipt; None before rules decided, or if there is no such receipt."""
    found = ports.documents.get("instances", receipt_id)
    return None if found is None else _complete(ports, found.data)


def find_records(
    ports: Ports, where: Mapping[str, str], *, limit: int, cursor: str | None = None
) -> tuple[list[Record], str | None]:
    """Records whose fields have these values (empty ones do not count), newest first; and the
    cursor of the rest. Raises: ValueError for a foreign cursor.
    """
    filters = [Filter(name, "==", value) for name, value in where.items() if value]
    page = ports.documents.query(
        "instances", filters, order_by="received_at", descending=True, limit=limit, cursor=cursor
    )
    return [_complete(ports, document.data) for document in page.documents], page.cursor


def _complete(ports: Ports, instance: Mapping[str, Any]) -> Record:
    page = ports.documents.query(
        "deliveries", [Filter("receipt_id", "==", instance["receipt_id"])], limit=1000
    )
    return Record(instance, {d.data["destination"]: d.data for d in page.documents})
