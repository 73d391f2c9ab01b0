"""Senders are told the same, whichever way they send."""

from __future__ import annotations

import inspect

import pytest

from scp_gateway.dimse_status import answer_for
from shared import errors
from shared.errors import AxiomError
from shared.refusals import REFUSALS, Refusal, comment_on, refusal_for
from shared.web.store_response import FailedInstance

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AxiomError)
]


def made(kind: type[AxiomError]) -> AxiomError:
    """One of that class."""
    try:
        return kind()
    except TypeError:  # it needs to be told something, which no answer depends on
        return kind.__new__(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_c_store_and_stow_rs_answer_the_same(kind: type[AxiomError]) -> None:
    error = made(kind)
    error.template, error.args = "said", ("things", "key")  # type: ignore[misc]
    reason = FailedInstance(error).failure_reason
    assert int(reason) == int(answer_for(error).status) == int(refusal_for(error))


def test_whatever_may_be_sent_again_is_out_of_resources() -> None:
    """PS3.4 B.2.3: A7xxH alone says that the same Instance may be taken later."""
    for kind in KINDS:
        if issubclass(kind, errors.TransientError):
            assert refusal_for(made(kind)) is Refusal.OUT_OF_RESOURCES


def test_a_bug_is_our_own_failure() -> None:
    assert refusal_for(ValueError("x")) is Refusal.PROCESSING_FAILURE


def test_no_row_is_hidden_by_one_above() -> None:
    seen: list[type[AxiomError]] = []
    for kind, _ in REFUSALS:
        assert not any(issubclass(kind, earlier) for earlier in seen)
        seen.append(kind)


def test_a_comment_is_cut_between_words_for_half_a_uid_is_another() -> None:
    uid = "1.2.826.0.1.3680043.8.498.1234567890.1234567890.1234567890"
    comments = [comment_on(errors.NotDicomError(f"{start} {uid}")) for start in ("its UID is", "")]
    assert comments[0].endswith(" UID is...")
    for comment in (*comments, comment_on(errors.NotDicomError("x" * 100))):
        assert len(comment) <= 64
