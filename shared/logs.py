"""Structured logs: one JSON object a line, in Cloud Logging's field names, without patient Values.

An error that is not ours may quote anything it met, so its text stays out: its type and the places
in our code that it passed are what a line keeps.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime

from shared import tracing
from shared.environment import Platform
from shared.errors import AxiomError

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


class JsonFormatter(logging.Formatter):
    """`severity`, `time`, `message`, `logger`, `part`, whatever `extra=` gave, and `error`.

    What is said while an Instance is worked on has its `trace_id`; in Google's `project` Cloud
    Logging shows the line beside the trace.
    """

    def __init__(self, part: str, project: str = "") -> None:
        super().__init__()
        self._part, self._project = part, project

    def format(self, record: logging.LogRecord) -> str:
        """One line; values of `extra=` that JSON does not know are shown as text."""
        line: dict[str, object] = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "part": self._part,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({k: v for k, v in record.__dict__.items() if k not in _STANDARD})
        scope = tracing.current()
        if scope is not None and scope.trace_id:
            line.setdefault("trace_id", scope.trace_id)
        if self._project and line.get("trace_id"):
            name = f"projects/{self._project}/traces/{line['trace_id']}"
            line["logging.googleapis.com/trace"] = name
            if scope is not None and scope.span_id:
                line["logging.googleapis.com/spanId"] = scope.span_id
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, default=str, ensure_ascii=False)


def describe(error: BaseException) -> dict[str, object]:
    """The type of an error and where it passed; its text only if it is one of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    described: dict[str, object] = {
        "type": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, AxiomError):
        described["code"], described["text"] = error.code, str(error)
    return described


def configure(part: str, level: int = logging.INFO) -> None:
    """Send this process's logs to standard error, one JSON line each."""
    handler = logging.StreamHandler(sys.stderr)
    project = ""
    if os.environ.get("AXIOM_PLATFORM") == Platform.CLOUD:
        project = os.environ.get("AXIOM_PROJECT") or os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    handler.setFormatter(JsonFormatter(part, project))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # pynetdicom and pydicom log Values of the data sets they meet.
    for talkative in ("pynetdicom", "pydicom"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)
