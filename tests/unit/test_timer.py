"""The timer of the embedded mode: calls until the block ends, whatever a call comes to."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from infra.local.timer import calling


def test_goes_on_after_calls_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """A call that raises would otherwise be the last, and no Study be complete ever again."""
    answers: list[Any] = [ValueError("CANARY"), ("not now", 503, {}), ("", 204, {})]
    done = Event()

    def entry_point(_: Any) -> Any:
        answer = answers.pop(0)
        if not answers:
            done.set()
            answers.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with calling(entry_point, every_s=0.001):
        assert done.wait(120)
    assert "CANARY" not in caplog.text
    assert len(caplog.records) == 2


def test_begins_when_it_is_told_to_or_has_waited_long_enough() -> None:
    for once, wait_s in ((lambda: True, 1e9), (lambda: False, 0.002)):
        called = Event()

        def entry_point(_: Any, called: Event = called) -> Any:
            called.set()
            return "", 204, {}

        with calling(entry_point, every_s=0.001, once=once, wait_s=wait_s):
            assert called.wait(120)


def test_does_not_begin_before() -> None:
    asked = Event()
    calls: list[object] = []

    def once() -> bool:
        asked.set()
        return False

    with calling(calls.append, every_s=0.001, once=once, wait_s=1e9):
        assert asked.wait(120)
    assert calls == []
