"""Session tokens: ours alone, short, renewed for half a day, signed by secrets that change."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.identity.sessions import COLLECTION, LIFETIME_S, RENEWABLE_S, Sessions
from tests.fakes import FakeClock
from tests.unit.identity.issuer import unsigned

DAY_S = 86_400


class Process:
    """One of several processes over the same stores."""

    def __init__(self, home: Path, clock: FakeClock) -> None:
        self.documents = SqliteDocumentStore(home / "documents.db")
        self.secrets = FileSecretStore(home / "secrets")
        self.sessions = Sessions(self.documents, self.secrets, clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def process(tmp_path: Path, clock: FakeClock) -> Process:
    return Process(tmp_path, clock)


def token_of(process: Process, user: str = "ada") -> str:
    made = process.sessions.issue(user)
    assert made is not None
    return made.token


class TestSessions:
    def test_are_known_to_every_process(
        self, process: Process, tmp_path: Path, clock: FakeClock
    ) -> None:
        known = Process(tmp_path, clock).sessions.verify(token_of(process))
        assert known is not None
        assert known.user == "ada"

    def test_end_after_an_hour(self, process: Process, clock: FakeClock) -> None:
        token = token_of(process)
        clock.advance(LIFETIME_S - 1)
        assert process.sessions.verify(token) is not None
        clock.advance(1)
        assert process.sessions.verify(token) is None

    def test_are_renewed_for_half_a_day(self, process: Process, clock: FakeClock) -> None:
        began_s = clock.now().timestamp()
        clock.advance(RENEWABLE_S - 60)
        last = process.sessions.issue("ada", signed_in_at_s=began_s)
        assert last is not None
        assert last.expires_at_s == began_s + RENEWABLE_S
        clock.advance(60)
        assert process.sessions.issue("ada", signed_in_at_s=began_s) is None

    def test_outlive_a_change_of_the_secret(self, process: Process, clock: FakeClock) -> None:
        clock.advance(DAY_S - clock.now().timestamp() % DAY_S - 60)
        token = token_of(process)
        clock.advance(120)
        assert process.sessions.verify(token) is not None
        assert jwt.get_unverified_header(token_of(process)) != jwt.get_unverified_header(token)

    def test_leave_no_old_secrets_behind(self, process: Process, clock: FakeClock) -> None:
        for _ in range(5):
            token_of(process)
            clock.advance(DAY_S)
        assert len(process.documents.query(COLLECTION).documents) <= 3

    def test_are_signed_with_what_the_first_of_two_processes_made(
        self, process: Process, tmp_path: Path, clock: FakeClock
    ) -> None:
        """Both look before either has stored anything."""
        other = Process(tmp_path, clock)
        created: list[str] = []
        create = other.documents.create

        def late_create(collection: str, key: str, data: object) -> object:
            if not created:
                created.append(token_of(process))
            return create(collection, key, data)  # type: ignore[arg-type]

        other.documents.create = late_create  # type: ignore[method-assign,assignment]
        theirs = token_of(other)
        assert process.sessions.verify(theirs) is not None
        assert other.sessions.verify(created[0]) is not None

    def test_say_nothing_for_another_purpose(self, process: Process, clock: FakeClock) -> None:
        exp = int(clock.now().timestamp()) + 60
        token = process.sessions.sign("login", {"sub": "ada", "auth_time": 0, "exp": exp})
        assert process.sessions.verify(token) is None
        assert process.sessions.read("login", token) is not None

    def test_are_nobody_elses_to_make(self, process: Process, clock: FakeClock) -> None:
        good = token_of(process)
        header = jwt.get_unverified_header(good)
        claims = jwt.decode(good, options={"verify_signature": False})
        forged = [
            unsigned(claims, header["kid"]),
            jwt.encode(claims, "x" * 32, "HS256", headers=header),
            jwt.encode(claims, "x" * 32, "HS256", headers={"kid": "../../etc/passwd"}),
            good[:-3],
            "a.b.c",
            "." * 50_000,
            "",
        ]
        assert not any(process.sessions.verify(token) for token in forged)
