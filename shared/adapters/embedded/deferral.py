"""What the work on one message writes, kept back so that it is committed with that of others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.errors import TransientError
from shared.ports import Outgoing

if TYPE_CHECKING:
    from shared.adapters.embedded.document_store import SqliteDocumentStore
    from shared.adapters.embedded.message_bus import SqliteMessageBus

# A change to documents, as `Database.write` takes it.
Change = Callable[[sqlite3.Connection], object]


class OvertakenError(TransientError):
    """A document that was to be created, replaced or deleted has changed before that was
    committed: the work is to begin anew, and to keep nothing back.
    """

    code = "overtaken"
    hint = "Nothing is to be done: it is tried again at once."
    template = "a document was changed by somebody else meanwhile"


class Deferral:
    """Changes to documents, then messages, in the order in which one message's work made them.

    While it is `active` in a thread the two stores put there what that thread writes. To all others
    the thread looks slow: nothing is written until whoever has the Deferral commits `changes` and
    then publishes `outgoing`. To the thread the stores look as always, for whatever it could tell
    the difference by commits first what was kept back: a read, and a change after a message. That
    a document is not as `create`, `replace` or `delete` expect it to be shows at the commit.
    """

    def __init__(self, documents: SqliteDocumentStore, bus: SqliteMessageBus) -> None:
        self._documents, self._bus = documents, bus
        self.changes: list[Change] = []
        self.outgoing: list[Outgoing] = []
        # What was to be committed in between could not be, and is not kept back any longer: the
        # work is to begin anew, whatever it makes of that itself.
        self.is_broken = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """In this thread, within the block."""
        with self._documents.deferring(self), self._bus.deferring(self):
            yield

    def change(self, change: Change) -> None:
        """Keep a change back. Raises: as `commit`."""
        if self.outgoing:
            self.commit()
        self.changes.append(change)

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Keep messages back."""
        self.outgoing += outgoing

    def commit(self) -> None:
        """Make what is kept back durable now.

        Raises: OvertakenError; StorageUnavailableError. It is not kept back any longer then either.
        """
        changes, self.changes = self.changes, []
        outgoing, self.outgoing = self.outgoing, []
        try:
            if changes:
                (error,) = self._documents.commit_each([changes])
                if error is not None:
                    raise OvertakenError from error
            self._bus.publish_now(outgoing)
        except BaseException:
            self.is_broken = True
            raise
