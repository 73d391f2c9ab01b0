"""What a request to Google is counted as."""

from __future__ import annotations

from google.cloud.firestore_v1.types import document, firestore, write
from google.pubsub_v1.types import PublishRequest, PubsubMessage

from infra.local.rehearse.meter import of_request

ROOT = "projects/p/databases/(default)/documents"


def test_a_commit_is_its_writes_and_deletions_by_collection() -> None:
    request = firestore.CommitRequest(
        writes=[
            write.Write(update=document.Document(name=f"{ROOT}/instances/1")),
            write.Write(update=document.Document(name=f"{ROOT}/deliveries/1")),
            write.Write(delete=f"{ROOT}/instances/2"),
        ]
    )
    assert sorted(of_request("Commit", firestore.CommitRequest.serialize(request))) == [
        ("delete", "instances", 1),
        ("write", "deliveries", 1),
        ("write", "instances", 1),
    ]


def test_a_publication_is_its_messages_with_their_attributes() -> None:
    request = PublishRequest(
        topic="projects/p/topics/t",
        messages=[PubsubMessage(data=b"1234", attributes={"ab": "c"}), PubsubMessage(data=b"5")],
    )
    assert list(of_request("Publish", PublishRequest.serialize(request))) == [
        ("message", "t", 2),
        ("message_bytes", "t", 8),
    ]


def test_other_requests_cost_nothing_here() -> None:
    assert list(of_request("GetTopic", b"")) == []
