"""Cursors come back from strangers: whatever one is, it is read or refused."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.queries import close_cursor, open_cursor
from shared.cursors import cursor_of, said_by
from tests.embedded_system import System
from tests.unit.web_fakes import AUTHORIZED, client_over

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.lists(JSON, max_size=3))
def test_what_was_said_is_read_back(said: list[Any]) -> None:
    assert said_by(cursor_of(*said)) == said


@given(
    st.text(max_size=40) | st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode()), JSON
)
def test_whatever_a_stranger_made_is_read_or_refused(cursor: str, said: Any) -> None:
    with suppress(ValueError):
        said_by(cursor)
    for made in (cursor, cursor_of("mark", said), cursor_of("mark", *[said] * 2)):
        with suppress(ValueError):
            value, key = open_cursor(made, "mark")
            assert (close_cursor("mark", value, key), type(key)) == (made, str)


def test_one_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 3000).decode()
    client = client_over(System(tmp_path / "home").ports)
    lists = ("instances", "deliveries", "exceptions", "audit", "jobs", "studies", "users")
    answers = [client.get(f"/api/v1/{name}?cursor={deep}", headers=AUTHORIZED) for name in lists]
    search = {"cursor": deep}
    answers.append(client.post("/api/v1/data-browser/query", json=search, headers=AUTHORIZED))
    assert [answer.status_code for answer in answers] == [400] * len(answers)


def test_one_of_another_query_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of this query"):
        open_cursor(close_cursor("one", 1, "key"), "another")
