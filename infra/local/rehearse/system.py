"""The running rehearsal: emulators, stores, functions and the gateway, each process on its own.

Departs from what Terraform says in this alone: addresses are those of this machine, tokens are
signed with a key of our own, Cloud Run's scaling is one process for each function, and Pub/Sub's
emulator tries again after a second: with a retry policy it falls silent once some pushes failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from infra.local.addresses import claim_port
from infra.local.rehearse.emulators import emulator, end_group, listens_within
from infra.local.rehearse.front import CERTS_PATH, Front, front
from infra.local.rehearse.shape import Shape
from infra.local.terminal import CommandFailedError

if TYPE_CHECKING:
    from tests.google.healthcare import HealthcareStore

ROOT = Path(__file__).resolve().parents[3]
AE_TITLE = "AXIOM"

_LOOPBACK = "127.0.0.1"
_FIRESTORE = "FIRESTORE_EMULATOR_HOST"
_READY_WITHIN_S = 120.0
# Of the emulators and of no function.
_OF_FUNCTIONS = ("FUNCTION_TARGET", "AXIOM_THREADS", "AXIOM_AUDIENCE", "AXIOM_HTTP2")


@dataclass(slots=True)
class Process:
    """One function, or the gateway, as its container would run."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    port: int
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; twice after `kill` is a new instance."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(  # noqa: S603 (the words are ours)
                self.command,
                cwd=ROOT,
                env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return once it listens. Raises: CommandFailedError with the end of its log."""
        if not listens_within(self.port, _READY_WITHIN_S):
            end = self.log.read_text(errors="replace")[-1500:]
            raise CommandFailedError(f"{self.name} does not listen:\n{end}", code="not-ready")

    def kill(self) -> None:
        """SIGKILL it with all its children, in the middle of whatever it does."""
        assert self.running is not None
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        self.running = None

    def end(self) -> float:
        """SIGTERM it as Cloud Run does; how many seconds it took to end."""
        if self.running is None:
            return 0.0
        running, self.running = self.running, None
        return end_group(running, 20.0)


@dataclass(slots=True)
class System:
    """What runs."""

    shape: Shape
    environment: Mapping[str, str]  # common to all
    store: HealthcareStore
    gateway: Process
    functions: dict[str, Process]
    pubsub: str
    ended_s: dict[str, float] = field(default_factory=dict)

    def publish(self, topic: str, data: str) -> None:
        """Publish a message past our own code; `data` is in base64."""
        answer = requests.post(
            f"http://{self.pubsub}/v1/projects/{self.shape.project}/topics/{topic}:publish",
            json={"messages": [{"data": data}]},
            timeout=30,
        )
        answer.raise_for_status()

    def documents(self, collection: str) -> list[Mapping[str, Any]]:
        """All documents of a collection of ours, by the real client."""
        from google.cloud import firestore

        from shared.adapters.cloud.document_store import FirestoreDocumentStore

        before = os.environ.get(_FIRESTORE)
        os.environ[_FIRESTORE] = self.environment[_FIRESTORE]
        try:
            client = firestore.Client(
                project=self.shape.project, database=self.environment["AXIOM_DATABASE"]
            )
        finally:
            os.environ.pop(_FIRESTORE)
            if before is not None:
                os.environ[_FIRESTORE] = before
        found = FirestoreDocumentStore(client).query(collection, limit=1000)
        return [one.data for one in found.documents]


@contextmanager
def running_system(
    folder: Path, wanted: Collection[str], tell: Callable[[str], None]
) -> Iterator[System]:
    """The system with these functions (entry points) while the block runs; logs are in `folder`.

    Raises: CommandFailedError.
    """
    # The stand-ins of what Google has no emulator of are those of the tests.
    from tests.google.cloud_storage import cloud_storage
    from tests.google.healthcare import healthcare
    from tests.google.secret_manager import secret_manager_server

    shape = Shape.read()
    with ExitStack() as stack:
        tell("starting Google's emulators")
        firestore, pubsub = _emulators(folder, stack)
        common = shape.functions["validate_instance"]
        bucket = stack.enter_context(cloud_storage(common["AXIOM_BUCKET"]))
        store = stack.enter_context(healthcare())
        callers = common["AXIOM_CALLERS"].split(",")
        google = stack.enter_context(front(callers[0]))
        environment = {
            **{name: value for name, value in common.items() if name not in _OF_FUNCTIONS},
            "PUBSUB_EMULATOR_HOST": pubsub,
            _FIRESTORE: firestore,
            "STORAGE_EMULATOR_HOST": bucket.client._connection.API_BASE_URL,
            "AXIOM_SECRET_MANAGER_ENDPOINT": stack.enter_context(secret_manager_server()),
            "AXIOM_HEALTHCARE_ENDPOINT": store.url,
            "AXIOM_DICOM_STORE": store.name,
            "AXIOM_ALLOWED_NETWORKS": f"{_LOOPBACK}/32",
            "AXIOM_OIDC": "verify",
            "AXIOM_OIDC_CERTS_URL": google.url + CERTS_PATH,
            "AXIOM_AUDIENCE": "axiom-gateway",  # of whom nobody calls
        }
        functions = {name: _function(name, shape, environment, folder) for name in wanted}
        gateway = _gateway(environment, folder)
        system = System(shape, environment, store, gateway, functions, pubsub)
        stack.callback(_end, system)
        _make_topics(system, google)
        tell(f"starting {len(functions)} functions and the gateway")
        for process in (*functions.values(), gateway):
            process.start()
        for process in (*functions.values(), gateway):
            process.wait()
        yield system


def _emulators(folder: Path, stack: ExitStack) -> tuple[str, str]:
    with ThreadPoolExecutor(2) as pool:
        firestore, pubsub = pool.map(
            lambda name: stack.enter_context(emulator(name, folder)), ("firestore", "pubsub")
        )
    return firestore, pubsub


def _function(name: str, shape: Shape, environment: Mapping[str, str], folder: Path) -> Process:
    port = claim_port(0, _LOOPBACK, name)
    told = {
        **environment,
        **{n: v for n, v in shape.functions[name].items() if n not in environment},
        "AXIOM_AUDIENCE": shape.functions[name]["AXIOM_AUDIENCE"],
        "PORT": str(port),
        "AXIOM_FUNCTION_HOST": _LOOPBACK,
        "AXIOM_HOME": str(folder / name),
    }
    command = [sys.executable, "-m", "infra.images.serve"]
    return Process(name, command, told, port, folder / f"{name}.log")


def _gateway(environment: Mapping[str, str], folder: Path) -> Process:
    port = claim_port(0, _LOOPBACK, "AXIOM_DIMSE")
    told = {
        **environment,
        "AXIOM_DIMSE_HOST": _LOOPBACK,
        "AXIOM_DIMSE_PORT": str(port),
        "AXIOM_AE_TITLE": AE_TITLE,
        "AXIOM_HOME": str(folder / "gateway"),
    }
    command = [sys.executable, "-m", "scp_gateway.main"]
    return Process("gateway", command, told, port, folder / "gateway.log")


def _make_topics(system: System, google: Front) -> None:
    """As planned, with endpoints on this machine; of functions that do not run, topics alone."""
    shape, root = system.shape, f"http://{system.pubsub}/v1/projects/{system.shape.project}"
    for topic in shape.topics:
        requests.put(f"{root}/topics/{topic}", json={}, timeout=60).raise_for_status()
    for one in shape.subscriptions:
        function = system.functions.get(one.function)
        if function is None:
            continue
        document: dict[str, Any] = {
            "topic": f"projects/{shape.project}/topics/{one.topic}",
            "ackDeadlineSeconds": one.ack_deadline_s,
            "pushConfig": {
                "pushEndpoint": google.add(
                    one.function, function.environment["AXIOM_AUDIENCE"], function.port
                )
            },
        }
        if one.dead_letter_topic:
            document["deadLetterPolicy"] = {
                "deadLetterTopic": f"projects/{shape.project}/topics/{one.dead_letter_topic}",
                "maxDeliveryAttempts": one.max_attempts,
            }
        answer = requests.put(f"{root}/subscriptions/{one.name}", json=document, timeout=60)
        answer.raise_for_status()


def _end(system: System) -> None:
    """The gateway first, so that nothing comes in; then all functions at once."""
    system.ended_s["gateway"] = system.gateway.end()
    with ThreadPoolExecutor(16) as pool:
        ended = {name: pool.submit(one.end) for name, one in system.functions.items()}
    system.ended_s.update({name: one.result() for name, one in ended.items()})
