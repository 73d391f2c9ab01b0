"""Calls an entry point again and again, as Cloud Scheduler does in the cloud."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.messages import Topic
from shared.pipeline.push import PushRequest

log = logging.getLogger(__name__)

# How long a start waits for what came in while nobody worked.
_BACKLOG_WAIT_S = 60.0
_GRACE_S = 5.0


@contextmanager
def calling(
    entry_point: Callable[..., Any],
    *,
    every_s: float = 1.0,
    once: Callable[[], bool] = lambda: True,
    wait_s: float = _BACKLOG_WAIT_S,
) -> Iterator[None]:
    """Call `entry_point` every `every_s` seconds in a thread of its own while the block runs.

    The first call is when `once` has said so, or after `wait_s` seconds.
    """
    stopped = Event()
    arguments = (entry_point, every_s, once, wait_s, stopped)
    thread = Thread(target=_call, args=arguments, name="timer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(_GRACE_S)


def is_worked_off(bus: SqliteMessageBus) -> bool:
    """True if no Instance is on its way to the rules: a Study whose Instances wait in the queue
    looks quiet and is not.
    """
    depth = bus.depth()
    before_rules = {
        Topic.INSTANCE_RECEIVED,
        Topic.INSTANCE_ACCEPTED,
        Topic.STANDARDIZATION_REQUESTED,
    }
    return not before_rules & depth.keys()


def _call(
    entry_point: Callable[..., Any],
    every_s: float,
    once: Callable[[], bool],
    wait_s: float,
    stopped: Event,
) -> None:
    waited_s, may_begin = 0.0, False
    while not stopped.wait(every_s):
        waited_s += every_s
        try:
            may_begin = may_begin or waited_s >= wait_s or once()
            if may_begin:
                words, status, _ = entry_point(PushRequest(b"", {}))
                if status >= 300:
                    log.warning("the timer's call failed", extra={"reason": words})
        except Exception as error:
            # A bug's own text may hold Values.
            log.error("the timer's call failed", extra={"error": type(error).__name__})
