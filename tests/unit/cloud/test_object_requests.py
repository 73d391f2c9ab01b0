"""How often Cloud Storage is asked: each request is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google.cloud.storage as storage
import pytest

from shared.adapters.cloud.object_store import BucketObjectStore
from tests.google.cloud_storage import cloud_storage

MIB = 1 << 20


@pytest.fixture
def bucket() -> Iterator[storage.Bucket]:
    with cloud_storage() as found:
        yield found


@pytest.fixture
def asked(bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of all requests."""
    session, found = bucket.client._http, list[str]()
    request = session.request

    def noted(method: str, *arguments: Any, **named: Any) -> Any:
        found.append(method)
        return request(method, *arguments, **named)

    monkeypatch.setattr(session, "request", noted)
    return found


def _stored(bucket: storage.Bucket, data: bytes) -> BucketObjectStore:
    store = BucketObjectStore(bucket)
    with store.create("received/one") as writer:
        writer.write(data)
        writer.commit()
    return store


def test_a_small_object_is_read_in_the_request_that_opens_it(
    bucket: storage.Bucket, asked: list[str]
) -> None:
    store = _stored(bucket, b"0123456789")
    asked.clear()
    with store.open("received/one") as reader:
        assert (reader.size, reader.read_at(2, 3)) == (10, b"234")
        assert b"".join(reader.stream(5)) == b"56789"
    assert len(asked) == 1


@pytest.mark.parametrize("size", [0, MIB - 1, MIB, MIB + 1, 3 * MIB + 7])
def test_any_object_is_read_to_its_end_and_no_further(bucket: storage.Bucket, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    store = _stored(bucket, data[:size])
    with store.open("received/one") as reader:
        assert reader.size == size
        assert b"".join(reader.stream()) == data[:size]
        assert b"".join(reader.stream(MIB - 2, 4)) == data[:size][MIB - 2 : MIB + 2]
        assert reader.read_at(MIB - 2, 4) == data[:size][MIB - 2 : MIB + 2]


def test_what_is_open_is_read_though_it_is_deleted(bucket: storage.Bucket) -> None:
    store = _stored(bucket, bytes(2 * MIB))
    with store.open("received/one") as reader:
        store.delete("received/one")
        assert len(b"".join(reader.stream())) == 2 * MIB
