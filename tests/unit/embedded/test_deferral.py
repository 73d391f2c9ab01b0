"""What the work on one message writes is kept back, and nobody can tell but by its being late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.adapters.embedded.deferral import Deferral, OvertakenError
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.errors import DocumentChangedError
from shared.ports import Outgoing
from tests.fakes import FakeClock

MESSAGE = Outgoing("next", b"x")


class Stores:
    """Both stores, one Deferral over them, and how others see them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.documents = SqliteDocumentStore(folder / "documents.db")
        self.bus = SqliteMessageBus(folder / "queue.db", folder / "run", self.clock)
        self.others = SqliteDocumentStore(folder / "documents.db")
        self.deferral = Deferral(self.documents, self.bus)

    def published(self) -> int:
        depths = self.bus.depth("next")
        return depths["next"].messages if depths else 0

    def stored(self, key: str = "k") -> object:
        found = self.others.get("things", key)
        return found.data["n"] if found else None


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(tmp_path)
    yield stores
    stores.documents.close()
    stores.others.close()
    stores.bus.close()


def test_nothing_is_written_before_it_is_committed(stores: Stores) -> None:
    with stores.deferral.active():
        first = stores.documents.create("things", "k", {"n": 1})
        stores.documents.replace("things", "k", {"n": 2}, first.version)
        stores.bus.publish([MESSAGE])
    assert (stores.stored(), stores.published()) == (None, 0)
    stores.deferral.commit()
    assert (stores.stored(), stores.published()) == (2, 1)


def test_afterwards_the_thread_writes_at_once_again(stores: Stores) -> None:
    with stores.deferral.active():
        pass
    stores.documents.put("things", "k", {"n": 1})
    stores.bus.publish([MESSAGE])
    assert (stores.stored(), stores.published()) == (1, 1)


@pytest.mark.parametrize(
    "read",
    [
        lambda documents: documents.get("things", "k"),
        lambda documents: documents.query("things"),
        lambda documents: documents.count("things"),
    ],
    ids=["get", "query", "count"],
)
def test_a_read_finds_all_that_was_written_before(
    stores: Stores, read: Callable[[SqliteDocumentStore], object]
) -> None:
    """And so do others: whoever writes and then looks may rely on that (see `collect`)."""
    with stores.deferral.active():
        stores.documents.put("things", "k", {"n": 1})
        stores.bus.publish([MESSAGE])
        assert read(stores.documents)
        assert (stores.stored(), stores.published()) == (1, 1)


def test_a_message_is_never_behind_a_document_that_was_written_later(stores: Stores) -> None:
    with stores.deferral.active():
        stores.documents.put("things", "first", {"n": 1})
        stores.bus.publish([MESSAGE])
        stores.documents.put("things", "second", {"n": 2})
    assert (stores.stored("first"), stores.published(), stores.stored("second")) == (1, 1, None)


def test_a_document_that_others_changed_meanwhile_undoes_all_of_it(stores: Stores) -> None:
    known = stores.documents.put("things", "k", {"n": 1})
    with stores.deferral.active():
        stores.documents.put("things", "other", {"n": 1})
        stores.documents.replace("things", "k", {"n": 2}, known.version)
    stores.others.put("things", "k", {"n": 3})
    (error,) = stores.documents.commit_each([stores.deferral.changes])
    assert isinstance(error, DocumentChangedError)
    assert (stores.stored(), stores.stored("other")) == (3, None)


def test_a_read_tells_that_others_were_quicker(stores: Stores) -> None:
    with stores.deferral.active():
        stores.documents.create("things", "k", {"n": 1})
        stores.others.create("things", "k", {"n": 2})
        with pytest.raises(OvertakenError, match="somebody else"):
            stores.documents.get("things", "k")
    assert stores.deferral.is_broken
    assert not stores.deferral.changes
    assert stores.stored() == 2


def test_of_several_only_those_that_were_overtaken_are_undone(stores: Stores) -> None:
    deferrals = [Deferral(stores.documents, stores.bus) for _ in range(3)]
    for number, deferral in enumerate(deferrals):
        with deferral.active():
            stores.documents.put("things", f"first-{number}", {"n": number})
            stores.documents.create("things", f"k{number % 2}", {"n": number})
    errors = stores.documents.commit_each([deferral.changes for deferral in deferrals])
    assert [error is None for error in errors] == [True, True, False]
    assert (stores.stored("k0"), stores.stored("k1")) == (0, 1)
    assert stores.stored("first-2") is None
