"""The running rehearsal: emulators, stores, timers, functions and the gateway, as Terraform plans
them.

Departs from what Terraform says in this alone: addresses are those of this machine, tokens are
signed with a key of our own, and Cloud Run's scaling is at most one process for each function.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from infra.local.addresses import claim_port
from infra.local.rehearse import notices
from infra.local.rehearse.emulated_pubsub import (
    EmulatedPubSub,
    SubscriptionQueue,
    emulated_pubsub,
)
from infra.local.rehearse.emulators import emulator
from infra.local.rehearse.meter import Meter, door
from infra.local.rehearse.pushes import Policy, Pushing
from infra.local.rehearse.services import LOOPBACK, Process, Service
from infra.local.rehearse.shape import Shape, Subscription
from infra.local.rehearse.signing import Signer, signer

if TYPE_CHECKING:
    from tests.google.cloud_storage import Server as StorageServer
    from tests.google.healthcare import HealthcareStore

GATEWAY = "gateway"
# Those that a received Instance passes.
MAIN_PATH = ("validate_instance", "apply_rules", "deliver_instance")
# What people and programs ask; with an API key.
FOR_PEOPLE = ("api", "dicomweb")

_DICOMWEB_PATH = "/api/v1/dicomweb"
_REQUEST_TIMEOUT_S = 120.0


@dataclass(slots=True)
class System:
    """What runs."""

    shape: Shape
    stores: Mapping[str, HealthcareStore]  # by the names that Terraform has for them
    storage: StorageServer
    services: Mapping[str, Service]  # by entry point
    gateway: Process
    pubsub: EmulatedPubSub
    pushing: Pushing
    signer: Signer
    meter: Meter
    api_key: str
    ended_s: dict[str, float] = field(default_factory=dict)
    # Notifications that Google loses, as it may.
    loses_notices: bool = False
    _turns: dict[str, threading.RLock] = field(default_factory=dict)

    @property
    def processes(self) -> Mapping[str, Process]:
        """All that are ours, by name."""
        functions = {name: service.process for name, service in self.services.items()}
        return {**functions, GATEWAY: self.gateway}

    @property
    def delivered(self) -> HealthcareStore:
        """The store that a new system delivers to."""
        return self.stores[_last(self.shape.gateway["AXIOM_DICOM_STORE"])]

    @property
    def source_store(self) -> tuple[str, HealthcareStore]:
        """The store whose notifications are taken in."""
        name = next(one.source for one in self.shape.dicom_stores if one.topic)
        return name, self.stores[name]

    @property
    def landing_bucket(self) -> str:
        """Where others put files."""
        return self.shape.buckets[0].source

    def start(self, names: Collection[str]) -> None:
        """Have instances of these run before anybody asks. Raises: CommandFailedError."""
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: self.processes[name].start(), names))

    def request(self, method: str, path: str, **given: Any) -> requests.Response:
        """Ask the function that serves the path, as the administrator."""
        headers = {"Authorization": f"Api-Key {self.api_key}", **given.pop("headers", {})}
        if path.startswith(_DICOMWEB_PATH):
            assert method == "POST"
            return self._stow(path, headers, given["data"])
        api = self.services["api"]
        api.process.start()
        return requests.request(
            method, api.url + path, headers=headers, timeout=_REQUEST_TIMEOUT_S, **given
        )

    def _stow(self, path: str, headers: Mapping[str, str], body: bytes) -> requests.Response:
        """Over HTTP/2, as Cloud Run's proxy passes it on to a service that takes large requests."""
        from tests.unit.cloud.processes import post_over_http2

        process = self.services["dicomweb"].process
        process.start()
        response = requests.Response()
        response.status_code, response._content = post_over_http2(
            process.port, path, dict(headers), iter([body])
        )
        return response

    def listed(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All entries of a paged list."""
        entries: list[dict[str, Any]] = []
        while True:
            answer = self.request("GET", path, params={"limit": "500", **query})
            answer.raise_for_status()
            page = answer.json()
            entries += page["items"]
            if not page["next_cursor"]:
                return entries
            query["cursor"] = page["next_cursor"]

    def tick(self, function: str) -> int:
        """Call a function as its timer does; the HTTP status."""
        timer = next(one for one in self.shape.timers if one.function == function)
        headers = {"Authorization": f"Bearer {self.signer.token(timer.audience, timer.caller)}"}
        with self.turn(function):
            return self.services[function].post(b"", headers, _seconds(timer.attempt_deadline))

    def turn(self, function: str) -> threading.RLock:
        """Held by whoever calls a function that is called by one at a time."""
        return self._turns.setdefault(function, threading.RLock())

    def logs(self) -> str:
        """The end of what each process has said."""
        return "".join(
            f"\n---- {name}\n{process.log.read_text(errors='replace')[-2000:]}"
            for name, process in self.processes.items()
            if process.log.exists()
        )


@contextmanager
def running_system(
    folder: Path, tell: Callable[[str], None], *, on_premises: bool = False
) -> Iterator[System]:
    """The whole system while the block runs; the functions start when they are needed, and logs are
    in `folder`. The gateway is one in the cloud, or one `on_premises` with a spool.

    Raises: CommandFailedError.
    """
    # The stand-ins of what Google has no emulator of are those of the tests.
    from tests.google.cloud_storage import storage_server
    from tests.google.healthcare import healthcare_stores
    from tests.google.secret_manager import secret_manager_server

    shape = Shape.read()
    with ExitStack() as stack:
        tell("starting Google's emulators")
        firestore_at, pubsub_at = _emulators(folder, stack)
        meter, tokens = Meter(), stack.enter_context(signer())
        buckets = [shape.gateway["AXIOM_BUCKET"], *(one.source for one in shape.buckets)]
        storage = stack.enter_context(storage_server(*buckets))
        stores = stack.enter_context(healthcare_stores(*_store_paths(shape).values()))
        told = {
            "AXIOM_SECRET_MANAGER_ENDPOINT": stack.enter_context(secret_manager_server()),
            "AXIOM_HEALTHCARE_ENDPOINT": next(iter(stores.values())).url,
            "AXIOM_ALLOWED_NETWORKS": f"{LOOPBACK}/32",
            "AXIOM_OIDC_CERTS_URL": tokens.certs_url,
        }
        api_key = secrets.token_hex(16)

        def environment(name: str, planned: Mapping[str, str]) -> dict[str, str]:
            google = stack.enter_context(door(name, meter, firestore_at, pubsub_at))
            key = {"AXIOM_API_KEY": api_key} if name in FOR_PEOPLE else {}
            return {
                **planned,
                **told,
                **key,
                "PUBSUB_EMULATOR_HOST": google,
                "FIRESTORE_EMULATOR_HOST": google,
                "STORAGE_EMULATOR_HOST": storage.url_as(name),
            }

        services = {
            name: Service(_function(name, environment(name, planned), folder))
            for name, planned in shape.functions.items()
        }
        system = System(
            shape,
            {name: stores[path] for name, path in _store_paths(shape).items()},
            storage,
            services,
            _gateway(environment(GATEWAY, shape.gateway), folder, on_premises=on_premises),
            stack.enter_context(emulated_pubsub(pubsub_at, shape.project)),
            Pushing(),
            tokens,
            meter,
            api_key,
        )
        storage.on_request = _noting(meter)
        stack.callback(_end, system)
        _connect(system)
        tell("starting the gateway and the functions on an Instance's way")
        if on_premises:  # it lets nobody in before there is a configuration, which the API makes
            system.request("GET", "/api/v1/config").raise_for_status()
        system.start((GATEWAY, *MAIN_PATH))
        yield system


def _noting(meter: Meter) -> Callable[[str, str, str], None]:
    """Notes what Cloud Storage is asked for by our processes."""

    def note(caller: str, kind: str, bucket: str) -> None:
        if caller:
            meter.note(caller, kind, bucket)

    return note


def _store_paths(shape: Shape) -> dict[str, str]:
    place = shape.gateway["AXIOM_DICOM_STORE"].rpartition("/")[0]
    return {one.source: f"{place}/{one.source}" for one in shape.dicom_stores}


def _emulators(folder: Path, stack: ExitStack) -> tuple[str, str]:
    with ThreadPoolExecutor(2) as pool:
        firestore, pubsub = pool.map(
            lambda name: stack.enter_context(emulator(name, folder)), ("firestore", "pubsub")
        )
    return firestore, pubsub


def _function(name: str, told: Mapping[str, str], folder: Path) -> Process:
    told = {**told, "AXIOM_FUNCTION_HOST": LOOPBACK}
    return Process(name, "infra.images.serve", "PORT", told, folder)


def _gateway(told: Mapping[str, str], folder: Path, *, on_premises: bool) -> Process:
    here = {
        "AXIOM_DIMSE_HOST": LOOPBACK,
        "AXIOM_HEALTH_PORT": str(claim_port(0, LOOPBACK, "AXIOM_HEALTH_PORT")),
    }
    if on_premises:
        here["AXIOM_INSTANCE"] = "on-premises"
        here["AXIOM_GATEWAY_SPOOL"] = str(folder / "spool")
        here["AXIOM_GATEWAY_PROCESSES"] = "2"
    return Process(GATEWAY, "scp_gateway.main", "AXIOM_DIMSE_PORT", {**told, **here}, folder)


def _connect(system: System) -> None:
    """Topics, pushes and notifications, as planned."""
    shape, pubsub = system.shape, system.pubsub
    pubsub.create(shape)
    for one in shape.subscriptions:
        policy = Policy(
            subscription=pubsub.subscription_path(one),
            ack_deadline_s=one.ack_deadline_s,
            minimum_backoff_s=_seconds(one.minimum_backoff),
            maximum_backoff_s=_seconds(one.maximum_backoff),
            max_attempts=one.max_attempts,
            dead_letter_topic=one.dead_letter_topic,
        )
        system.pushing.add(policy, SubscriptionQueue(pubsub, one), _push_of(system, one))
    for notified in shape.buckets:
        _notify_of_objects(system, notified.source, notified.topic)
    for notified in shape.dicom_stores:
        if notified.topic:
            _notify_of_instances(system, notified.source, notified.topic)


def _push_of(system: System, one: Subscription) -> Callable[[bytes, Mapping[str, str]], int]:
    service = system.services[one.function]

    def push(body: bytes, headers: Mapping[str, str]) -> int:
        system.meter.note(one.function, "push", one.name)
        token = system.signer.token(one.audience, one.caller)
        told = {**headers, "Authorization": f"Bearer {token}"}
        return service.post(body, told, one.ack_deadline_s)

    return push


def _notify_of_objects(system: System, bucket: str, topic: str) -> None:
    def notify(shown: Mapping[str, Any]) -> None:
        if not system.loses_notices:
            system.pubsub.publish(topic, *notices.object_finalized(shown))

    system.storage.buckets[bucket].on_finalized = notify


def _notify_of_instances(system: System, store: str, topic: str) -> None:
    def notify(action: str, path: str) -> None:
        if not system.loses_notices:
            system.pubsub.publish(topic, *notices.instance_changed(action, path))

    system.stores[store].on_change = notify


def _end(system: System) -> None:
    """The gateway first, so that nothing comes in; then all functions at once."""
    system.ended_s[GATEWAY] = system.gateway.end()
    system.pushing.end()
    with ThreadPoolExecutor(16) as pool:
        ended = {name: pool.submit(one.process.end) for name, one in system.services.items()}
    system.ended_s.update({name: one.result() for name, one in ended.items()})


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def _last(path: str) -> str:
    return path.rpartition("/")[2]
