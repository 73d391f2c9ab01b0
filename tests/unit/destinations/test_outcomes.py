"""The table that says what an answer means."""

from __future__ import annotations

import pickle
import socket
import ssl

import pytest
import requests

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
)


def test_success_and_the_warnings_are_stored_and_nothing_else() -> None:
    """PS3.7 C.1: Success is 0000H; Warning is 0001H, Bxxx, 0107H, 0116H."""
    stored = {s for s in range(0x10000) if outcomes.dimse_status(s).outcome.is_stored}
    assert stored == {0x0000, 0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)}


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, Outcome.SUCCESS),
        (202, Outcome.WARNING),
        (301, Outcome.MISCONFIGURED),
        (400, Outcome.PERMANENT),
        (401, Outcome.MISCONFIGURED),
        (404, Outcome.MISCONFIGURED),
        (408, Outcome.TRANSIENT),
        (409, Outcome.PERMANENT),
        (413, Outcome.PERMANENT),
        (415, Outcome.PERMANENT),
        (429, Outcome.TRANSIENT),
        (500, Outcome.TRANSIENT),
        (501, Outcome.MISCONFIGURED),
        (503, Outcome.TRANSIENT),
        (507, Outcome.TRANSIENT),
        (204, Outcome.PERMANENT),
        (101, Outcome.PERMANENT),
    ],
)
def test_http_status_codes(code: int, outcome: Outcome) -> None:
    assert outcomes.http_status(code).outcome is outcome


def test_rejected_transient_outranks_the_reason() -> None:
    assert outcomes.association_rejection(1, 1, 7).outcome is Outcome.MISCONFIGURED
    assert outcomes.association_rejection(2, 1, 7).outcome is Outcome.TRANSIENT


def wrapped_certificate_error() -> requests.exceptions.SSLError:
    """As requests has it: the TLS library's error lies in `args` of an error in `reason`."""
    error = requests.exceptions.SSLError(Exception("max retries"))
    error.args[0].reason = Exception(ssl.SSLCertVerificationError(1, "self-signed"))
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (wrapped_certificate_error(), Outcome.MISCONFIGURED),
        (requests.exceptions.SSLError("eof"), Outcome.TRANSIENT),
        (requests.exceptions.ConnectTimeout(), Outcome.TRANSIENT),
        (requests.exceptions.ReadTimeout(), Outcome.TRANSIENT),
        (requests.exceptions.InvalidURL(), Outcome.MISCONFIGURED),
        (requests.exceptions.ChunkedEncodingError(), Outcome.TRANSIENT),
        (socket.gaierror(socket.EAI_NONAME, "no such host"), Outcome.TRANSIENT),
        (TimeoutError(), Outcome.TRANSIENT),
        (BlockingIOError(), Outcome.TRANSIENT),
        (BrokenPipeError(), Outcome.TRANSIENT),
        (OSError(5, "input/output error"), Outcome.TRANSIENT),
        (OSError(99999, "?"), Outcome.TRANSIENT),
        (PermissionError(13, "denied"), Outcome.MISCONFIGURED),
    ],
)
def test_client_errors(error: Exception, outcome: Outcome) -> None:
    assert outcomes.client_error(error).outcome is outcome


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.TRANSIENT, DestinationUnavailableError),
        (Outcome.PERMANENT, DestinationRefusedError),
        (Outcome.CONFLICT, DestinationRefusedError),
        (Outcome.MISCONFIGURED, DestinationMisconfiguredError),
    ],
)
def test_an_outcome_becomes_the_error_that_says_what_happens_next(
    outcome: Outcome, kind: type[Exception]
) -> None:
    error = outcomes.failure(Verdict(outcome, "meaning"), "pacs", "words", retry_after_s=7)
    assert type(error) is kind
    assert str(error) == "pacs: meaning: words"
    assert getattr(error, "refuses_all", False) is (outcome is Outcome.MISCONFIGURED)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert getattr(again, "retry_after_s", None) == (7 if outcome is Outcome.TRANSIENT else None)
