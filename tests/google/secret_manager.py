"""A Secret Manager in this process, for the real client: Google has no emulator of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud import secretmanager_v1 as sm
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)
from google.protobuf import empty_pb2

_SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"


class _Secrets:
    """Its answers, as the API's documentation has them."""

    def __init__(self) -> None:
        self._versions: dict[str, list[bytes]] = {}

    def create(self, request: sm.CreateSecretRequest, context: Any) -> sm.Secret:
        name = f"{request.parent}/secrets/{request.secret_id}"
        if name in self._versions:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "exists")
        if "replication" not in request.secret:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "replication is required")
        self._versions[name] = []
        return sm.Secret(name=name)

    def add(self, request: sm.AddSecretVersionRequest, context: Any) -> sm.SecretVersion:
        if request.parent not in self._versions:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such secret")
        if not request.payload.data:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the payload is empty")
        self._versions[request.parent].append(request.payload.data)
        number = len(self._versions[request.parent])
        return sm.SecretVersion(name=f"{request.parent}/versions/{number}")

    def access(
        self, request: sm.AccessSecretVersionRequest, context: Any
    ) -> sm.AccessSecretVersionResponse:
        name, _, version = request.name.partition("/versions/")
        assert version == "latest"
        if not self._versions.get(name):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        data = self._versions[name][-1]
        return sm.AccessSecretVersionResponse(name=request.name, payload={"data": data})

    def delete(self, request: sm.DeleteSecretRequest, context: Any) -> empty_pb2.Empty:
        if self._versions.pop(request.name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such secret")
        return empty_pb2.Empty()


@contextmanager
def secret_manager() -> Iterator[sm.SecretManagerServiceClient]:
    """The real client, connected to a server of its own."""
    with secret_manager_server() as address, grpc.insecure_channel(address) as channel:
        yield sm.SecretManagerServiceClient(
            transport=SecretManagerServiceGrpcTransport(channel=channel)
        )


@contextmanager
def secret_manager_server() -> Iterator[str]:
    """`host:port` of an empty one."""
    secrets = _Secrets()

    def handler(answer: Callable[..., Any], request: Any, response: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request.deserialize,
            response_serializer=getattr(response, "serialize", None) or response.SerializeToString,
        )

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                _SERVICE,
                {
                    "CreateSecret": handler(secrets.create, sm.CreateSecretRequest, sm.Secret),
                    "AddSecretVersion": handler(
                        secrets.add, sm.AddSecretVersionRequest, sm.SecretVersion
                    ),
                    "AccessSecretVersion": handler(
                        secrets.access,
                        sm.AccessSecretVersionRequest,
                        sm.AccessSecretVersionResponse,
                    ),
                    "DeleteSecret": handler(
                        secrets.delete, sm.DeleteSecretRequest, empty_pb2.Empty
                    ),
                },
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
