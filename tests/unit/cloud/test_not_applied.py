"""What Terraform has not applied, or not given, is one line with its address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.api_core import exceptions as google_errors

from infra.images.serve import FOR_PEOPLE
from shared.adapters.cloud import clients, document_store, object_store, preflight, secret_store
from shared.adapters.cloud.document_store import FirestoreDocumentStore
from shared.adapters.cloud.environment import CloudEnvironment
from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.cloud.message_bus import PubSubMessageBus, terraform_address
from shared.adapters.cloud.object_store import BucketObjectStore
from shared.adapters.cloud.secret_store import SecretManagerSecretStore
from shared.errors import StorageUnavailableError
from shared.ports import Outgoing
from tests.conftest import ROOT
from tests.google.cloud_storage import storage_server

NOT_APPLIED = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


@contextmanager
def refusing(code: grpc.StatusCode) -> Iterator[str]:
    """A Google that answers each call so; `host:port`."""

    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, handler_call_details: Any) -> Any:
            def refuse(request: bytes, context: Any) -> bytes:
                context.abort(code, "PATIENT^NAME is not yours to read")
                raise AssertionError

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def environment(google: str) -> CloudEnvironment:
    return CloudEnvironment.read(
        {
            "AXIOM_PROJECT": "p",
            "AXIOM_BUCKET": "received",
            "AXIOM_TOPIC_PREFIX": "axiom-",
            "AXIOM_OIDC": "off",
            "PUBSUB_EMULATOR_HOST": google,
            "AXIOM_SECRET_MANAGER_ENDPOINT": f"http://{google}",
        }
    )


def documents(google: str, patch: pytest.MonkeyPatch) -> FirestoreDocumentStore:
    patch.setenv("FIRESTORE_EMULATOR_HOST", google)
    return FirestoreDocumentStore(clients.firestore_client(environment(google)))


def said(ask: Callable[[], object]) -> str:
    """The one line."""
    with pytest.raises(StorageUnavailableError) as caught:
        ask()
    (line,) = str(caught.value).splitlines()
    assert "PATIENT" not in line
    return line


@pytest.mark.parametrize("code", NOT_APPLIED)
def test_a_database_is_named(code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing(code) as google:
        store = documents(google, monkeypatch)
        for ask in (lambda: store.get("jobs", "1"), lambda: store.query("jobs")):
            assert document_store.TERRAFORM_ADDRESS in said(ask)


def test_an_index_is_named_with_its_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing(grpc.StatusCode.FAILED_PRECONDITION) as google:
        store = documents(google, monkeypatch)
        for ask in (lambda: store.query("jobs"), lambda: store.count("jobs")):
            line = said(ask)
            assert f"{document_store.INDEX_ADDRESS} of jobs" in line
            assert document_store.TERRAFORM_ADDRESS not in line


@pytest.mark.parametrize("code", NOT_APPLIED)
def test_a_topic_is_named(code: grpc.StatusCode) -> None:
    with refusing(code) as google:
        bus = PubSubMessageBus(clients.publisher(environment(google)), "p", "axiom-")
        line = said(lambda: bus.publish([Outgoing("job-requested", b"")]))
    assert terraform_address("job-requested") in line


def test_secrets_are_named() -> None:
    with refusing(grpc.StatusCode.PERMISSION_DENIED) as google:
        client = clients.secret_manager(environment(google))
        line = said(lambda: SecretManagerSecretStore(client, "p").get("key"))
    assert secret_store.TERRAFORM_ADDRESS in line


def test_a_bucket_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with storage_server("another") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = clients.storage_client(environment("not-asked")).bucket("received")
        line = said(lambda: list(BucketObjectStore(bucket).list()))
    assert object_store.TERRAFORM_ADDRESS in line


@pytest.mark.parametrize(
    "error",
    [google_errors.Forbidden("x"), google_errors.Unauthorized("x"), google_errors.NotFound("x")],
)
def test_whatever_is_refused_over_http_is_named(error: Exception) -> None:
    def ask() -> None:
        with told_as_ours("Cloud Storage", "module.storage.this"):
            raise error

    assert "apply module.storage.this, and the roles on it" in said(ask)


def test_all_of_it_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each; of the indexes one for each list that people are shown."""
    with (
        refusing(grpc.StatusCode.FAILED_PRECONDITION) as google,
        storage_server("another") as server,
    ):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        store, topics = documents(google, monkeypatch), FOR_PEOPLE["api"]
        found = preflight.faults(environment(google), store, topics)
    assert all(len(line.splitlines()) == 1 for line in found)
    for address in (object_store.TERRAFORM_ADDRESS, *map(terraform_address, topics)):
        assert sum(address in line for line in found) == 1
    assert sum(document_store.INDEX_ADDRESS in line for line in found) > 4


@pytest.mark.parametrize("function", sorted(FOR_PEOPLE))
def test_the_topics_looked_at_are_those_that_terraform_lets_it_publish_to(function: str) -> None:
    terraform = (ROOT / "functions.tf").read_text(encoding="utf-8")
    (entry,) = re.findall(
        rf"^    {function} = \{{\n(.*?)^    \}}", terraform, re.DOTALL | re.MULTILINE
    )
    (listed,) = re.findall(r"publishes_to\s+= \[(.*?)\]", entry)
    assert set(re.findall('"(.*?)"', listed)) == set(FOR_PEOPLE[function])
