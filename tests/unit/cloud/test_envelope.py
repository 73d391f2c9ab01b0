"""Every envelope that a message comes in, and whatever strangers push."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MalformedMessageError
from shared.messages import JobRequested, decode
from shared.pipeline.envelope import PushedMessage, open_envelope
from shared.pipeline.push import PushRequest

DATA = b'{"job_id":"j"}'
MESSAGE: Mapping[str, Any] = {
    "data": base64.b64encode(DATA).decode(),
    "messageId": "64",
    "message_id": "64",
    "publishTime": "2026-11-21T09:23:59.212Z",
    "attributes": {"axiom-lane": "pacs"},
}
WRAPPED: Mapping[str, Any] = {"subscription": "projects/p/subscriptions/s", "message": MESSAGE}
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"


def opened(body: bytes | Mapping[str, Any], **headers: str) -> PushedMessage:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return open_envelope(PushRequest(data, named))


def deflated(data: bytes, **message: Any) -> Mapping[str, Any]:
    encoded = base64.b64encode(data).decode()
    attributes = {"axiom-encoding": "deflate"}
    return {"message": {**MESSAGE, "data": encoded, "attributes": attributes, **message}}


class TestADeflatedMessage:
    """Pub/Sub is paid for by the byte, and a header of 16 KB is 3 KB then."""

    def test_is_inflated(self) -> None:
        assert opened(deflated(zlib.compress(DATA))).data == DATA

    def test_is_inflated_where_its_attributes_are_header_fields(self) -> None:
        found = opened(
            zlib.compress(DATA),
            **{"x-goog-pubsub-message-id": "7", "axiom-encoding": "deflate"},
        )
        assert found.data == DATA

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            DATA,
            zlib.compress(DATA)[:-5],
            zlib.compress(bytes(20_000_000)),  # 20 KB that would fill the memory
        ],
    )
    def test_is_refused_where_it_cannot_be(self, data: bytes) -> None:
        with pytest.raises(MalformedMessageError):
            opened(deflated(data))

    @given(st.binary(max_size=200))
    def test_is_refused_or_read_whatever_strangers_push(self, data: bytes) -> None:
        with suppress(MalformedMessageError):
            opened(deflated(data))


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (DEEP, {}),
        (b'{"message": {"data": "", "x": ' + DEEP, {}),
        (b'{"message": {"data": "", "x": ' + DEEP, {"ce_type": PUBLISHED}),
        (b'{"type": "t", "data": ' + DEEP, {"content_type": "application/cloudevents+json"}),
    ],
)
def test_what_is_nested_without_end_is_none(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(MalformedMessageError):
        opened(body, **headers)
    with pytest.raises(MalformedMessageError):
        decode(body, JobRequested)


class TestAMessage:
    def test_is_pushed_wrapped(self) -> None:
        found = opened(WRAPPED, content_type="application/json")
        assert (found.data, found.message_id) == (DATA, "64")
        assert found.attributes == {"axiom-lane": "pacs"}
        assert found.attempt == 1

    def test_is_pushed_as_it_is(self) -> None:
        found = opened(DATA, **{"x-goog-pubsub-message-id": "7"})
        assert (found.data, found.message_id) == (DATA, "7")

    def test_is_the_data_of_a_cloud_event_in_header_fields(self) -> None:
        """As Eventarc sends it: the data is Pub/Sub's whole envelope."""
        found = opened(WRAPPED, ce_type=PUBLISHED, ce_id="64", content_type="application/json")
        assert (found.data, found.event_type) == (DATA, PUBLISHED)

    def test_is_the_data_of_a_cloud_event_in_json(self) -> None:
        event = {"specversion": "1.0", "id": "64", "type": PUBLISHED, "data": WRAPPED}
        kind = "application/cloudevents+json; charset=utf-8"
        assert opened(event, content_type=kind).data == DATA
        encoded = base64.b64encode(json.dumps(WRAPPED).encode()).decode()
        event = {"specversion": "1.0", "id": "1", "type": PUBLISHED, "data_base64": encoded}
        assert opened(event, content_type=kind).data == DATA

    def test_may_have_attributes_alone(self) -> None:
        """functions-framework itself answers 400 to it, so that it would come again for ever."""
        found = opened({"message": {"attributes": {"action": "x"}, "messageId": "1"}})
        assert (found.data, found.attributes) == (b"", {"action": "x"})

    def test_of_another_service_is_its_event_s_data(self) -> None:
        found = opened(
            {"bucket": "b"}, ce_type="google.cloud.storage.object.v1.finalized", ce_id="5"
        )
        assert json.loads(found.data) == {"bucket": "b"}
        assert found.message_id == "5"


class TestTheAttempt:
    """Pub/Sub tells it beside a dead letter policy, its emulator never, and we may do so."""

    def test_is_pub_sub_s_own(self) -> None:
        assert opened({**WRAPPED, "deliveryAttempt": 4}).attempt == 4

    def test_is_ours_where_we_said_it(self) -> None:
        message = {**MESSAGE, "attributes": {"axiom-attempt": "9", "axiom-ordering-key": "k"}}
        found = opened({"message": message, "deliveryAttempt": 1})
        assert (found.attempt, found.ordering_key) == (9, "k")

    @pytest.mark.parametrize("text", ["-1", "x", "9" * 30, "٣", ""])
    def test_of_a_stranger_is_no_error(self, text: str) -> None:
        message = {**MESSAGE, "attributes": {"axiom-attempt": text}}
        assert 1 <= opened({"message": message}).attempt <= 99_999_999


class TestStrangers:
    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"[]", b"null", b"\xff", b'{"message":1}', b'{"message":{"data":"!"}}'],
    )
    def test_push_what_is_no_envelope(self, body: bytes) -> None:
        with pytest.raises(MalformedMessageError):
            opened(body)

    @given(
        body=st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["message", "data", "attributes", "messageId", "type", "id"]),
                    inner,
                    max_size=4,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
        headers=st.dictionaries(
            st.sampled_from(["content-type", "ce-type", "ce-id", "x-goog-pubsub-message-id"]),
            st.sampled_from(["", PUBLISHED, "application/cloudevents+json", "x"]),
        ),
    )
    def test_get_one_kind_of_error_alone(self, body: bytes, headers: dict[str, str]) -> None:
        with suppress(MalformedMessageError):
            open_envelope(PushRequest(body, headers))
