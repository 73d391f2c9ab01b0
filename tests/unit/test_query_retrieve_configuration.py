"""What a listener may say of Query/Retrieve, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shared.config.service import check
from shared.errors import InvalidConfigurationError

STORE = {"name": "archive", "type": "dicomweb", "base_url": "http://archive.example/dicom-web"}
BUCKET = {"name": "bucket", "type": "gcs", "bucket": "a-bucket"}
FOLDER = {"name": "folder", "type": "filesystem", "path": "out"}


def listener(**query_retrieve: Any) -> dict[str, Any]:
    return {"name": "qr", "port": 11999, "query_retrieve": query_retrieve}


def faults_of(document: dict[str, Any]) -> set[str]:
    with pytest.raises(InvalidConfigurationError) as refused:
        check(document)
    return {fault.path for fault in refused.value.faults}


@pytest.mark.parametrize("part", ["sources", "destinations"])
def test_the_store_may_be_a_source_or_a_destination(part: str) -> None:
    checked = check({part: [STORE], "listeners": [listener(store="archive", move=False)]})
    services = checked.listeners[0].query_retrieve
    assert services is not None
    assert (services.find, services.move) == (True, False)


def test_a_store_that_is_not_there_is_refused() -> None:
    document = {"listeners": [listener(store="archive")]}
    assert faults_of(document) == {"listeners[0].query_retrieve.store"}


def test_a_store_that_answers_no_searches_is_refused() -> None:
    document = {"destinations": [BUCKET], "listeners": [listener(store="bucket")]}
    assert faults_of(document) == {"listeners[0].query_retrieve.store"}


def test_the_store_may_be_a_folder_of_ours() -> None:
    assert check({"destinations": [FOLDER], "listeners": [listener(store="folder")]})


def test_nothing_is_moved_to_a_metadata_server() -> None:
    moves = {"CT": {"host": "169.254.0.1", "port": 104}}
    document = {
        "sources": [STORE],
        "listeners": [listener(store="archive", move_destinations=moves)],
    }
    path = "listeners[0].query_retrieve.move_destinations.CT.host"
    assert faults_of(document) == {path}


@pytest.mark.parametrize("given", [None, 7, "archive", [], {"store": 7}, {"store": None}])
def test_what_is_no_such_document_is_refused_and_no_bug(given: Any) -> None:
    document = {"listeners": [{"name": "qr", "port": 11999, "query_retrieve": given}]}
    if given is None:
        check(document)
    else:
        assert faults_of(document)
