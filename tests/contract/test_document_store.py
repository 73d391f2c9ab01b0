"""What every DocumentStore promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from shared.adapters.cloud.document_store import EXPIRES, FirestoreDocumentStore
from shared.errors import DocumentChangedError, DocumentExistsError
from shared.ports import DocumentStore, Filter, Put

THINGS: dict[str, dict[str, Any]] = {
    "a": {"rank": 2, "colour": "red", "mixed": 1},
    "b": {"rank": 1, "colour": "blue", "mixed": "1"},
    "c": {"rank": 2, "colour": "red", "mixed": True},
    "d": {"rank": 1.5, "colour": "green", "mixed": None},
    "e": {"colour": "red", "mixed": 1.0},
    "f": {"rank": -3, "colour": "Red", "mixed": [1]},
}


def fill(documents: DocumentStore) -> None:
    for key, data in THINGS.items():
        documents.create("things", key, data)


def found(documents: DocumentStore, *where: Filter, **options: Any) -> str:
    """The keys of all pages of a query, one page at a time."""
    keys, cursor = "", None
    while True:
        page = documents.query("things", where, cursor=cursor, **options)
        keys += "".join(document.key for document in page.documents)
        cursor = page.cursor
        if cursor is None:
            return keys


class TestDocumentStore:
    """A new adapter is one more param of the `documents` fixture."""

    def test_gives_back_what_was_created(self, documents: DocumentStore) -> None:
        data = {"text": "Grüße \N{SNOWMAN}\0", "n": -1, "f": 0.5, "b": True, "x": None,
                "list": [1, ["2"], {}], "map": {"a": {"b": []}}, "": "empty"}  # fmt: skip
        created = documents.create("things", "k/1 ü", data)
        read = documents.get("things", "k/1 ü")
        assert read == created
        assert read is not None
        assert read.data == data

    def test_there_is_nothing_where_nothing_was_written(self, documents: DocumentStore) -> None:
        assert documents.get("things", "a") is None
        assert documents.query("things").documents == []
        assert documents.count("things") == 0
        documents.delete("things", "a")

    def test_what_is_written_with_a_document_is_there_with_it(
        self, documents: DocumentStore
    ) -> None:
        documents.create("things", "a", {"n": 1}, also=[Put("others", "x", {"n": 1})])
        read = documents.get("others", "x")
        assert read is not None
        first = documents.get("things", "a")
        assert first is not None
        puts = [Put("others", "x", {"n": 2}), Put("others", "y", {"n": 2})]
        documents.replace("things", "a", {"n": 2}, first.version, also=puts)
        for key in "xy":
            read = documents.get("others", key)
            assert read is not None
            assert read.data == {"n": 2}

    def test_or_neither_is(self, documents: DocumentStore) -> None:
        first = documents.create("things", "a", {"n": 1})
        documents.put("things", "a", {"n": 2})
        with pytest.raises(DocumentExistsError):
            documents.create("things", "a", {}, also=[Put("others", "x", {})])
        with pytest.raises(DocumentChangedError):
            documents.replace("things", "a", {}, first.version, also=[Put("others", "x", {})])
        with pytest.raises(TypeError):
            documents.create("things", "b", {}, also=[Put("others", "x", {"not": object()})])
        assert documents.get("others", "x") is None
        assert documents.get("things", "b") is None

    def test_creates_only_once(self, documents: DocumentStore) -> None:
        documents.create("things", "a", {"n": 1})
        with pytest.raises(DocumentExistsError):
            documents.create("things", "a", {"n": 2})
        documents.create("others", "a", {"n": 3})
        assert documents.count("things", [Filter("n", "==", 1)]) == 1

    def test_one_of_twenty_that_create_at_once_wins(self, documents: DocumentStore) -> None:
        barrier = Barrier(20)

        def attempt(number: int) -> bool:
            barrier.wait()
            try:
                documents.create("things", "raced", {"number": number})
            except DocumentExistsError:
                return False
            return True

        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(attempt, range(20)))
        read = documents.get("things", "raced")
        assert read is not None
        assert [number for number, has_won in enumerate(won) if has_won] == [read.data["number"]]

    def test_replaces_only_what_was_read(self, documents: DocumentStore) -> None:
        first = documents.create("things", "a", {"n": 1})
        second = documents.replace("things", "a", {"n": 2}, first.version)
        assert second.version != first.version
        with pytest.raises(DocumentChangedError):
            documents.replace("things", "a", {"n": 3}, first.version)
        assert documents.get("things", "a") == second

    def test_counts_right_when_many_replace_at_once(self, documents: DocumentStore) -> None:
        """Each increment reads, and tries again until nobody was in between."""
        documents.create("things", "counter", {"n": 0})

        def increment(_: int) -> None:
            while True:
                read = documents.get("things", "counter")
                assert read is not None
                try:
                    documents.replace("things", "counter", {"n": read.data["n"] + 1}, read.version)
                except DocumentChangedError:
                    continue
                return

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(increment, range(40)))
        read = documents.get("things", "counter")
        assert read is not None
        assert read.data["n"] == 40

    def test_does_not_replace_what_was_deleted(self, documents: DocumentStore) -> None:
        first = documents.create("things", "a", {})
        documents.delete("things", "a")
        with pytest.raises(DocumentChangedError):
            documents.replace("things", "a", {}, first.version)

    def test_a_version_never_comes_back(self, documents: DocumentStore) -> None:
        """Deleted and created again is another document, though its bytes are the same."""
        first = documents.create("things", "a", {"n": 1})
        documents.delete("things", "a")
        second = documents.create("things", "a", {"n": 1})
        assert second.version != first.version
        with pytest.raises(DocumentChangedError):
            documents.delete("things", "a", first.version)

    def test_put_writes_whatever_is_there(self, documents: DocumentStore) -> None:
        first = documents.put("things", "a", {"n": 1, "only": "here"})
        second = documents.put("things", "a", {"n": 2})
        assert first.version != second.version
        assert documents.get("things", "a") == second

    def test_deletes_only_what_was_read_if_a_version_is_given(
        self, documents: DocumentStore
    ) -> None:
        first = documents.create("things", "a", {})
        second = documents.put("things", "a", {})
        with pytest.raises(DocumentChangedError):
            documents.delete("things", "a", first.version)
        documents.delete("things", "a", second.version)
        with pytest.raises(DocumentChangedError):
            documents.delete("things", "a", second.version)
        assert documents.get("things", "a") is None

    def test_what_was_read_does_not_change_with_what_was_given(
        self, documents: DocumentStore
    ) -> None:
        data = {"list": [1]}
        created = documents.create("things", "a", data)
        data["list"].append(2)
        assert created.data == {"list": [1]}

    @pytest.mark.parametrize("data", [{"x": object()}, {"x": float("nan")}, {"x": b"bytes"}])
    def test_refuses_what_is_not_json(self, documents: DocumentStore, data: dict[str, Any]) -> None:
        with pytest.raises((TypeError, ValueError)):
            documents.put("things", "a", data)

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ([Filter("colour", "==", "red")], "ace"),
            ([Filter("colour", "==", "red"), Filter("rank", "==", 2)], "ac"),
            ([Filter("colour", "in", ["blue", "green", "grey"])], "bd"),
            ([Filter("colour", "in", [])], ""),
            ([Filter("rank", "<", 2)], "bdf"),
            ([Filter("rank", "<=", 1.5)], "bdf"),
            ([Filter("rank", ">", 1), Filter("rank", "<", 2)], "d"),
            ([Filter("rank", ">=", 2)], "ac"),
            ([Filter("colour", "<", "a")], "f"),
            ([Filter("colour", ">", "g")], "acde"),
            ([Filter("missing", "==", None)], ""),
            ([Filter("missing", "<", 1)], ""),
        ],
    )
    def test_finds_what_fits_all_claims(
        self, documents: DocumentStore, where: list[Filter], expected: str
    ) -> None:
        fill(documents)
        assert found(documents, *where) == expected
        assert documents.count("things", where) == len(expected)

    @pytest.mark.parametrize(
        ("value", "expected"), [(1, "ae"), ("1", "b"), (True, "c"), (None, "d"), ("[1]", "")]
    )
    def test_values_equal_those_of_their_own_type_alone(
        self, documents: DocumentStore, value: Any, expected: str
    ) -> None:
        """1 is 1.0, but neither true nor "1": as in Firestore."""
        fill(documents)
        assert found(documents, Filter("mixed", "==", value)) == expected
        assert found(documents, Filter("mixed", "in", [value])) == expected

    @pytest.mark.parametrize("value", ["'; DROP TABLE things; --", "\"'", "%", "\u2028"])
    def test_values_are_never_a_part_of_the_question(
        self, documents: DocumentStore, value: str
    ) -> None:
        fill(documents)
        documents.create("things", "x", {"colour": value})
        assert found(documents, Filter("colour", "==", value)) == "x"
        assert documents.count("things") == 7

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    @pytest.mark.parametrize(
        ("order_by", "descending", "expected"),
        [
            (None, False, "abcdef"),
            (None, True, "fedcba"),
            ("rank", False, "fbdac"),
            ("rank", True, "cadbf"),
            ("colour", False, "fbdace"),
            ("colour", True, "ecadbf"),
        ],
    )
    def test_pages_join_to_the_whole_in_order(
        self,
        documents: DocumentStore,
        limit: int,
        order_by: str | None,
        descending: bool,
        expected: str,
    ) -> None:
        """Equal values are in the order of their keys; who lacks the field is left out."""
        fill(documents)
        keys = found(documents, order_by=order_by, descending=descending, limit=limit)
        assert keys == expected

    @pytest.mark.parametrize("limit", [1, 2, 100])
    @pytest.mark.parametrize(("descending", "expected"), [(False, "pqrst"), (True, "tsrqp")])
    def test_null_comes_first_in_an_order(
        self, documents: DocumentStore, limit: int, descending: bool, expected: str
    ) -> None:
        for key, value in {"r": 1, "t": 3, "p": None, "q": None, "s": 2}.items():
            documents.create("things", key, {"rank": value})
        documents.create("things", "without", {})
        assert found(documents, order_by="rank", descending=descending, limit=limit) == expected

    def test_orders_what_is_filtered(self, documents: DocumentStore) -> None:
        fill(documents)
        red = Filter("colour", "==", "red")
        assert found(documents, red, order_by="rank", descending=True, limit=1) == "ca"
        assert found(documents, Filter("rank", ">", -1), order_by="rank", limit=1) == "bdac"

    def test_a_page_goes_on_after_its_last_document_even_if_that_is_gone(
        self, documents: DocumentStore
    ) -> None:
        fill(documents)
        page = documents.query("things", order_by="rank", limit=2)
        documents.delete("things", page.documents[-1].key)
        documents.create("things", "0", {"rank": -100})
        rest = documents.query("things", order_by="rank", cursor=page.cursor)
        assert [document.key for document in rest.documents] == ["d", "a", "c"]

    def test_the_last_page_says_so(self, documents: DocumentStore) -> None:
        fill(documents)
        assert documents.query("things", limit=6).cursor is None
        assert documents.query("things", limit=5).cursor is not None

    @pytest.mark.parametrize("cursor", ["", "x", "AAAA", "W10=", "bnVsbA==", "ä"])
    def test_refuses_a_cursor_it_never_gave(self, documents: DocumentStore, cursor: str) -> None:
        fill(documents)
        with pytest.raises(ValueError):
            documents.query("things", cursor=cursor)

    def test_refuses_the_cursor_of_another_query(self, documents: DocumentStore) -> None:
        fill(documents)
        cursor = documents.query("things", order_by="rank", limit=1).cursor
        with pytest.raises(ValueError):
            documents.query("things", order_by="colour", limit=1, cursor=cursor)
        with pytest.raises(ValueError):
            documents.query("things", order_by="rank", descending=True, cursor=cursor)

    @pytest.mark.parametrize(
        "filter_",
        [
            Filter("colour", "==", object()),
            Filter("colour", "in", "red"),
            Filter("colour", "in", list(range(31))),
            Filter("rank", "<", None),
            Filter("rank", "LIKE", "x"),  # type: ignore[arg-type]
        ],
    )
    def test_refuses_filters_that_mean_nothing(
        self, documents: DocumentStore, filter_: Filter
    ) -> None:
        with pytest.raises(ValueError):
            documents.query("things", [filter_])
        with pytest.raises(ValueError):
            documents.count("things", [filter_])


def test_firestore_is_told_when_a_mark_expires_and_of_nothing_else(
    firestore_documents: FirestoreDocumentStore,
) -> None:
    """Its TTL goes by a field that is a time; a document without it stays."""
    for collection in ("ingested", "instances"):
        firestore_documents.put(collection, "one", {"at": "2026"})
    client = firestore_documents._client
    until = client.document("ingested/one").get().get(EXPIRES)
    assert timedelta(days=399) < until - datetime.now(UTC) < timedelta(days=401)
    assert EXPIRES not in (client.document("instances/one").get().to_dict() or {})
