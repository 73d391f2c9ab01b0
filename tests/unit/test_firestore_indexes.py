"""The index definitions, and the check of queries against them that every test makes."""

from __future__ import annotations

import json

from shared.adapters.cloud.document_store import EXPIRES, EXPIRING_DAYS
from shared.ports import Filter
from tests.firestore_indexes import FILE, Query

STATUS = Filter("status", "==", "open")
NEVER = Filter("colour", "==", "red")
SINCE = Filter("last_at", ">=", "2026")


class TestQuery:
    def test_by_key_alone_needs_no_index_of_ours(self) -> None:
        assert Query.of("exceptions", []).is_answered

    def test_in_an_order_needs_an_index_of_that_order(self) -> None:
        assert Query.of("exceptions", [], "last_at", descending=True).is_answered
        assert not Query.of("exceptions", [], "first_at", descending=True).is_answered

    def test_of_several_equal_fields_is_answered_by_indexes_merged(self) -> None:
        both = [STATUS, Filter("stage", "==", "rules")]
        assert Query.of("exceptions", both, "last_at", descending=True).is_answered
        assert not Query.of("exceptions", [*both, NEVER], "last_at", descending=True).is_answered

    def test_of_a_range_goes_by_that_field(self) -> None:
        assert Query.of("exceptions", [STATUS, SINCE], "last_at", descending=True).is_answered
        assert not Query.of("exceptions", [STATUS, SINCE]).is_answered

    def test_says_which_index_it_needs(self) -> None:
        needed = Query.of("jobs", [NEVER], "created_at", descending=True)
        assert (
            str(needed)
            == "jobs: fields.colour ASCENDING, fields.created_at DESCENDING, key DESCENDING"
        )

    def test_of_a_count_without_a_range_needs_none(self) -> None:
        assert Query.of_count("exceptions", [NEVER]) is None
        counted = Query.of_count("exceptions", [STATUS, SINCE])
        assert counted is not None
        assert counted.is_answered


class TestDefinitions:
    def test_are_each_there_once(self) -> None:
        indexes = json.loads(FILE.read_text(encoding="utf-8"))["indexes"]
        assert len({json.dumps(index) for index in indexes}) == len(indexes)
        assert len(indexes) < 200  # what Firestore allows at first

    def test_leave_the_text_of_a_document_out_of_every_index(self) -> None:
        definitions = json.loads(FILE.read_text(encoding="utf-8"))
        left_out = {
            (one["collectionGroup"], one["fieldPath"]) for one in definitions["fieldOverrides"]
        }
        for collection in {index["collectionGroup"] for index in definitions["indexes"]}:
            assert (collection, "json") in left_out, collection
            assert (collection, "writer") in left_out, collection

    def test_have_firestore_delete_what_the_code_lets_expire_and_nothing_else(self) -> None:
        definitions = json.loads(FILE.read_text(encoding="utf-8"))
        expiring = {
            (one["collectionGroup"], one["fieldPath"])
            for one in definitions["fieldOverrides"]
            if one.get("ttl")
        }
        assert expiring == {(collection, EXPIRES) for collection in EXPIRING_DAYS}

    def test_let_nothing_expire_that_the_clean_up_judges(self) -> None:
        judged = {"instances", "deliveries", "copies", "exceptions", "studies", "audit"}
        assert not judged & set(EXPIRING_DAYS)
