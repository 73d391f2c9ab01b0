"""What Terraform would make of topics, subscriptions, timers and processes, as the rehearsal makes
them.

`shape.json` is taken from a plan, and a test holds it against a new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SHAPE_FILE = Path(__file__).with_name("shape.json")

# What the rehearsal says itself, what comes from a secret, and what it has no peer for: an issuer
# of tokens, a collector, a repository of audit messages.
_NOT_SHAPE = re.compile(
    "AXIOM_(API_KEY|OIDC_(AUDIENCES|ISSUER|CLIENT_.*)|ADMIN_EMAIL|PUBLIC_URL"
    "|OTLP_ENDPOINT|TRACE_SAMPLING|AUDIT_SYSLOG.*)|OTEL_.*"
)
# How a machine of the gateway is told its environment, in its cloud-config.
_TOLD = re.compile(r"^\s+(AXIOM_[A-Z_]+)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One push subscription; times in seconds as Pub/Sub writes them ("5s")."""

    name: str
    topic: str
    function: str  # the folder of its entry point
    audience: str
    caller: str
    ack_deadline_s: int
    minimum_backoff: str
    maximum_backoff: str
    dead_letter_topic: str
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Timer:
    """One job of Cloud Scheduler."""

    name: str
    function: str
    schedule: str
    audience: str
    caller: str
    attempt_deadline: str


@dataclass(frozen=True, slots=True)
class Notification:
    """A bucket, or a DICOM store, that tells a topic what is put into it."""

    source: str
    topic: str


@dataclass(frozen=True, slots=True)
class Shape:
    """The system as planned. `functions` are the environments by entry point."""

    project: str
    topics: tuple[str, ...]
    subscriptions: tuple[Subscription, ...]
    timers: tuple[Timer, ...]
    buckets: tuple[Notification, ...]
    dicom_stores: tuple[Notification, ...]  # of one that tells nobody the topic is ""
    functions: Mapping[str, Mapping[str, str]]
    gateway: Mapping[str, str]

    @classmethod
    def read(cls) -> Shape:
        """The shape that is checked in."""
        known = json.loads(SHAPE_FILE.read_text(encoding="utf-8"))
        return cls(
            known["project"],
            tuple(known["topics"]),
            tuple(Subscription(**one) for one in known["subscriptions"]),
            tuple(Timer(**one) for one in known["timers"]),
            tuple(Notification(**one) for one in known["buckets"]),
            tuple(Notification(**one) for one in known["dicom_stores"]),
            known["functions"],
            known["gateway"],
        )

    @classmethod
    def of_plan(cls, document: Mapping[str, Any]) -> Shape:
        """The shape of a plan as `terraform show -json` gives it, with machines as gateways."""

        def planned(kind: str) -> Iterator[Mapping[str, Any]]:
            for change in document["resource_changes"]:
                if change["mode"] == "managed" and change["type"] == kind:
                    yield change["change"]["after"]

        services = list(planned("google_cloud_run_v2_service"))
        environments = {service["name"]: _environment(service) for service in services}
        targets = {name: told["FUNCTION_TARGET"] for name, told in environments.items()}
        subscriptions = [
            _subscription(after, targets)
            for after in planned("google_pubsub_subscription")
            if after["push_config"]
        ]
        (machine,) = planned("google_compute_instance_template")
        return cls(
            services[0]["project"],
            tuple(sorted(after["name"] for after in planned("google_pubsub_topic"))),
            tuple(sorted(subscriptions, key=lambda one: one.name)),
            tuple(_timer(after, targets) for after in planned("google_cloud_scheduler_job")),
            tuple(
                Notification(after["bucket"], _last(after["topic"]))
                for after in planned("google_storage_notification")
            ),
            tuple(
                Notification(
                    after["name"],
                    next((_last(c["pubsub_topic"]) for c in after["notification_config"]), ""),
                )
                for after in planned("google_healthcare_dicom_store")
            ),
            {targets[name]: environments[name] for name in sorted(environments)},
            _shape(dict(_TOLD.findall(machine["metadata"]["user-data"]))),
        )

    def write(self) -> None:
        """Check it in."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True)
        SHAPE_FILE.write_text(text + "\n", encoding="utf-8")


def _environment(service: Mapping[str, Any]) -> dict[str, str]:
    (container,) = service["template"][0]["containers"]
    return _shape({entry["name"]: entry["value"] for entry in container["env"]})


def _shape(told: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(told.items()) if not _NOT_SHAPE.fullmatch(name)}


def _subscription(after: Mapping[str, Any], targets: Mapping[str, str]) -> Subscription:
    (push,), (retry,) = after["push_config"], after["retry_policy"]
    (token,) = push["oidc_token"]
    dead: Mapping[str, Any] = next(iter(after["dead_letter_policy"] or ()), {})
    return Subscription(
        name=after["name"],
        topic=_last(after["topic"]),
        # The endpoint is known once the service is there; the audience is the service's name.
        function=targets[token["audience"]],
        audience=token["audience"],
        caller=token["service_account_email"],
        ack_deadline_s=after["ack_deadline_seconds"],
        minimum_backoff=retry["minimum_backoff"],
        maximum_backoff=retry["maximum_backoff"],
        dead_letter_topic=_last(dead.get("dead_letter_topic", "")),
        max_attempts=dead.get("max_delivery_attempts", 0),
    )


def _timer(after: Mapping[str, Any], targets: Mapping[str, str]) -> Timer:
    (target,) = after["http_target"]
    (token,) = target["oidc_token"]
    return Timer(
        name=after["name"],
        function=targets[token["audience"]],
        schedule=after["schedule"],
        audience=token["audience"],
        caller=token["service_account_email"],
        attempt_deadline=after["attempt_deadline"],
    )


def _last(path: str) -> str:
    return path.rpartition("/")[2]


if __name__ == "__main__":
    import sys

    Shape.of_plan(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).write()
