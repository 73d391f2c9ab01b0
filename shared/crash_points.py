"""Places where a test can have the process die as a power cut would have it die.

`AXIOM_CRASH_POINT="after-commit-before-publish:0.01 after-send-before-record:0.5"` names places and
how likely a pass through each is the last. Unset, as it is outside of tests, a pass costs nothing.
docs/reliability.md lists the names.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Mapping

VARIABLE = "AXIOM_CRASH_POINT"

# Between the received file and its message: the sender must not have been answered.
AFTER_COMMIT = "after-commit-before-publish"
# The message is published and the sender does not know: it sends again.
AFTER_PUBLISH = "after-publish-before-answer"
# The rules have decided and nobody was told.
AFTER_DECISION = "after-decision-before-publish"
# A stage has published what follows, and its own message comes again.
AFTER_STAGE = "after-stage-before-acknowledge"
# A Delivery has its claim and nothing was sent.
AFTER_CLAIM = "after-claim-before-send"
# The destination has the Instance and we do not know.
AFTER_SEND = "after-send-before-record"
# The Delivery is recorded, and its message comes again.
AFTER_RECORD = "after-record-before-acknowledge"
# What the work on several messages wrote is kept, and what they publish, and their own
# acknowledgement, is not: they come again.
AFTER_DOCUMENTS = "after-documents-before-messages"
# A Study is decided about and none of its Instances was told.
AFTER_COMPLETION = "after-completion-before-publish"
# A new configuration is written and not in force.
AFTER_CONFIGURATION_OBJECT = "after-configuration-object-before-head"
# A received file is marked as deleted and is there.
AFTER_MARK = "after-mark-before-delete"
# A received file is gone, and the clean-up has not told of it.
AFTER_DELETE = "after-delete-before-record"
# The Deliveries of an Instance are forgotten, and its own document is not.
AFTER_DELIVERIES = "after-deliveries-forgotten-before-instance"
# A request for storage commitment is kept, and nobody was told to report.
AFTER_REQUEST = "after-commitment-request-before-publish"
# Somebody was, and whoever asked does not know: it asks again.
AFTER_REQUEST_PUBLISHED = "after-commitment-publish-before-answer"
# A peer has the report, and we do not know.
AFTER_REPORT = "after-commitment-report-before-record"
# A destination has the Instance and was not asked to commit itself.
AFTER_STORE = "after-store-before-commitment-request"
# A destination's report is kept, and it does not know.
AFTER_KEPT_REPORT = "after-kept-report-before-answer"
# The cloud has a file of a gateway on premises, and was not told of it.
AFTER_UPLOAD = "after-upload-before-hand-over"
# The cloud goes on with it, and the gateway does not know.
AFTER_HANDOVER = "after-hand-over-before-forgetting"
# The gateway has deleted its file, and would move it again.
AFTER_FORGOTTEN = "after-forgetting-before-acknowledge"

NAMES = (
    AFTER_COMMIT,
    AFTER_PUBLISH,
    AFTER_DECISION,
    AFTER_STAGE,
    AFTER_CLAIM,
    AFTER_SEND,
    AFTER_RECORD,
    AFTER_DOCUMENTS,
    AFTER_COMPLETION,
    AFTER_CONFIGURATION_OBJECT,
    AFTER_MARK,
    AFTER_DELETE,
    AFTER_DELIVERIES,
    AFTER_REQUEST,
    AFTER_REQUEST_PUBLISHED,
    AFTER_REPORT,
    AFTER_STORE,
    AFTER_KEPT_REPORT,
    AFTER_UPLOAD,
    AFTER_HANDOVER,
    AFTER_FORGOTTEN,
)


def parse(text: str) -> Mapping[str, float]:
    """Probabilities by name. Raises: ValueError for what is not a list of `name:probability`."""
    points = {}
    for word in text.replace(",", " ").split():
        name, _, probability = word.partition(":")
        if name not in NAMES:
            raise ValueError(f"{VARIABLE}: there is no crash point {name!r}")
        points[name] = float(probability or 1)
    return points


_points = parse(os.environ.get(VARIABLE, ""))


def reached(name: str) -> None:
    """Die here without notice if the environment says so."""
    if _points and random.random() < _points.get(name, 0.0):  # noqa: S311 (which test dies where)
        print(f"crash point {name}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
