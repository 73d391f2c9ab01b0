"""Counts what each process asks of Google's databases and topics, as Google bills it.

A process has a door of its own to the emulators: what goes through it is passed on as it is, and
read on the way.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud.firestore_v1.types import firestore
from google.pubsub_v1.types import PublishRequest

_FIRESTORE = "google.firestore.v1.Firestore"
_ANSWERS_IN_PARTS = frozenset({"BatchGetDocuments", "RunQuery", "RunAggregationQuery"})
_THREADS = 32
_MOST_BYTES = 64 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", _MOST_BYTES),
    ("grpc.so_reuseport", 0),
]

_COMMIT = firestore.CommitRequest.pb()
_BATCH_GET = firestore.BatchGetDocumentsResponse.pb()
_RUN_QUERY = firestore.RunQueryRequest.pb()
_FOUND = firestore.RunQueryResponse.pb()
_AGGREGATION = firestore.RunAggregationQueryRequest.pb()
_PUBLISH = PublishRequest.pb()

# What is counted, and of which collection, topic or bucket.
Kind = tuple[str, str]


class Meter:
    """What was asked so far, by process."""

    def __init__(self) -> None:
        self._counted: dict[str, Counter[Kind]] = {}
        self._lock = threading.Lock()

    def note(self, process: str, kind: str, place: str, number: int = 1) -> None:
        """Count one thing, or several."""
        with self._lock:
            self._counted.setdefault(process, Counter())[kind, place] += number

    def messages(self, process: str) -> int:
        """How many it has published."""
        counted = self.read().get(process, Counter())
        return sum(number for (kind, _), number in counted.items() if kind == "message")

    def read(self) -> Mapping[str, Counter[Kind]]:
        """A copy."""
        with self._lock:
            return {process: Counter(counted) for process, counted in self._counted.items()}


@contextmanager
def door(process: str, meter: Meter, firestore_at: str, pubsub_at: str) -> Iterator[str]:
    """Where the process reaches both emulators, as `host:port`."""
    with (
        grpc.insecure_channel(firestore_at, options=_OPTIONS) as documents,
        grpc.insecure_channel(pubsub_at, options=_OPTIONS) as messages,
    ):
        forward = _Forward(process, meter, documents, messages)
        server = grpc.server(ThreadPoolExecutor(_THREADS), handlers=[forward], options=_OPTIONS)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


class _Forward(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, process: str, meter: Meter, documents: Any, messages: Any) -> None:
        self._process, self._meter = process, meter
        self._documents, self._messages = documents, messages

    def service(self, handler_call_details: Any) -> Any:
        """Called by gRPC for each call."""
        path: str = handler_call_details.method
        _, service, method = path.split("/")
        channel = self._documents if service == _FIRESTORE else self._messages
        if method in _ANSWERS_IN_PARTS:
            return grpc.unary_stream_rpc_method_handler(self._parts(channel, path, method))
        return grpc.unary_unary_rpc_method_handler(self._whole(channel, path, method))

    def _whole(self, channel: Any, path: str, method: str) -> Callable[[bytes, Any], bytes]:
        call = channel.unary_unary(path)

        def answer(request: bytes, context: Any) -> bytes:
            try:
                response: bytes = call(request, **_told(context))
            except grpc.RpcError as error:
                _fail(context, error)
            for kind, place, number in of_request(method, request):
                self._meter.note(self._process, kind, place, number)
            return response

        return answer

    def _parts(self, channel: Any, path: str, method: str) -> Any:
        call = channel.unary_stream(path)

        def answer(request: bytes, context: Any) -> Iterator[bytes]:
            place, read = _asked(method, request), 0
            try:
                for response in call(request, **_told(context)):
                    if _holds_a_document(method, response):
                        # Before it is answered: whoever has what he asked for may hang up.
                        self._meter.note(self._process, "read", place)
                        read += 1
                    yield response
            except grpc.RpcError as error:
                _fail(context, error)
            if not read:  # a query costs its documents, and one where it finds none
                self._meter.note(self._process, "read", place)

        return answer


def _told(context: Any) -> dict[str, Any]:
    kept = [(name, value) for name, value in context.invocation_metadata() if name != "user-agent"]
    return {"metadata": kept, "timeout": context.time_remaining()}


def _fail(context: Any, error: Any) -> None:
    context.set_trailing_metadata(error.trailing_metadata() or ())
    context.abort(error.code(), error.details())


def of_request(method: str, request: bytes) -> Iterator[tuple[str, str, int]]:
    """What a request that went well is counted as."""
    if method == "Commit":
        for write in _COMMIT.FromString(request).writes:
            what = "delete" if write.delete else "write"
            yield what, _collection(write.delete or write.update.name), 1
    elif method == "Publish":
        published = _PUBLISH.FromString(request)
        topic = published.topic.rpartition("/")[2]
        yield "message", topic, len(published.messages)
        size = sum(
            len(message.data) + sum(len(k) + len(v) for k, v in message.attributes.items())
            for message in published.messages
        )
        yield "message_bytes", topic, size


def _holds_a_document(method: str, response: bytes) -> bool:
    if method == "BatchGetDocuments":
        one = _BATCH_GET.FromString(response)
        return bool(one.missing or one.HasField("found"))
    return method == "RunQuery" and bool(_FOUND.FromString(response).HasField("document"))


def _asked(method: str, request: bytes) -> str:
    """The collection that is read."""
    if method == "BatchGetDocuments":
        asked = firestore.BatchGetDocumentsRequest.pb().FromString(request)
        return _collection(next(iter(asked.documents), ""))
    if method == "RunQuery":
        query = _RUN_QUERY.FromString(request).structured_query
    else:
        query = _AGGREGATION.FromString(request).structured_aggregation_query.structured_query
    return next((str(one.collection_id) for one in query.from_), "")


def _collection(name: str) -> str:
    return name.partition("/documents/")[2].partition("/")[0]
