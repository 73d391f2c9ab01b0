"""What Terraform would make of topics, subscriptions and functions, as the rehearsal makes them.

`shape.json` is taken from a plan, and a test holds it against a new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SHAPE_FILE = Path(__file__).with_name("shape.json")

# What the rehearsal says itself, or what comes from a secret.
_NOT_SHAPE = frozenset({"AXIOM_API_KEY"})


@dataclass(frozen=True, slots=True)
class Subscription:
    """One push subscription; times in seconds as Pub/Sub writes them ("5s")."""

    name: str
    topic: str
    function: str  # the folder of its entry point
    ack_deadline_s: int
    minimum_backoff: str
    maximum_backoff: str
    dead_letter_topic: str
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The system as planned. `functions` are the environments by entry point."""

    project: str
    topics: tuple[str, ...]
    subscriptions: tuple[Subscription, ...]
    functions: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls) -> Shape:
        """The shape that is checked in."""
        known = json.loads(SHAPE_FILE.read_text(encoding="utf-8"))
        return cls(
            known["project"],
            tuple(known["topics"]),
            tuple(Subscription(**one) for one in known["subscriptions"]),
            known["functions"],
        )

    @classmethod
    def of_plan(cls, document: Mapping[str, Any]) -> Shape:
        """The shape of a plan as `terraform show -json` gives it."""
        planned = [
            (change["type"], change["change"]["after"])
            for change in document["resource_changes"]
            if change["mode"] == "managed"
        ]
        services = [after for kind, after in planned if kind == "google_cloud_run_v2_service"]
        environments = {service["name"]: _environment(service) for service in services}
        targets = {name: told["FUNCTION_TARGET"] for name, told in environments.items()}
        subscriptions = [
            _subscription(after, targets)
            for kind, after in planned
            if kind == "google_pubsub_subscription" and after["push_config"]
        ]
        return cls(
            services[0]["project"],
            tuple(
                sorted(after["name"] for kind, after in planned if kind == "google_pubsub_topic")
            ),
            tuple(sorted(subscriptions, key=lambda one: one.name)),
            {targets[name]: environments[name] for name in sorted(environments)},
        )

    def write(self) -> None:
        """Check it in."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True)
        SHAPE_FILE.write_text(text + "\n", encoding="utf-8")


def _environment(service: Mapping[str, Any]) -> dict[str, str]:
    (container,) = service["template"][0]["containers"]
    told = {entry["name"]: entry["value"] for entry in container["env"]}
    return {name: value for name, value in sorted(told.items()) if name not in _NOT_SHAPE}


def _subscription(after: Mapping[str, Any], targets: Mapping[str, str]) -> Subscription:
    (push,), (retry,) = after["push_config"], after["retry_policy"]
    dead: Mapping[str, Any] = next(iter(after["dead_letter_policy"] or ()), {})
    return Subscription(
        name=after["name"],
        topic=after["topic"].rpartition("/")[2],
        # The endpoint is known once the service is there; the audience is the service's name.
        function=targets[push["oidc_token"][0]["audience"]],
        ack_deadline_s=after["ack_deadline_seconds"],
        minimum_backoff=retry["minimum_backoff"],
        maximum_backoff=retry["maximum_backoff"],
        dead_letter_topic=dead.get("dead_letter_topic", "").rpartition("/")[2],
        max_attempts=dead.get("max_delivery_attempts", 0),
    )


if __name__ == "__main__":
    import sys

    Shape.of_plan(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).write()
