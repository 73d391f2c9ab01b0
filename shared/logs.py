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
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime

from shared import tracing
from shared.environment import Platform
from shared.errors import AxiomError

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
_FORMATS = ("json", "text")
_OURS = ("shared", "scp_gateway", "infra", "functions", "__main__")
# They log Values of the data sets that they meet, and URLs that a search made of Values.
_TALKATIVE = ("pynetdicom", "pydicom", "urllib3")


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


class TextFormatter(logging.Formatter):
    """A line for a person at a terminal: the time of day, the part, what it says, and with what."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            described = describe(record.exc_info[1])
            places = described.pop("at")
            assert isinstance(places, list)
            extra |= {**described, "at": places[-1] if places else ""}
        words = [record.getMessage(), *(f"{k}={_on_one_line(v)}" for k, v in extra.items())]
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"{at} {self._part:<8} {level}{'  '.join(words)}"


def _on_one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else json.dumps(text)


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


def configure(part: str) -> None:
    """Send this process's logs to standard error: JSON, a line each, or to a terminal words about
    what is wrong alone. AXIOM_LOG_FORMAT (`json` or `text`) and AXIOM_LOG_LEVEL say otherwise.
    """
    is_text = _is_text(os.environ, is_terminal=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    project = ""
    if os.environ.get("AXIOM_PLATFORM") == Platform.CLOUD:
        project = os.environ.get("AXIOM_PROJECT") or os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    handler.setFormatter(TextFormatter(part) if is_text else JsonFormatter(part, project))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = _level(os.environ, logging.WARNING if is_text else logging.INFO)
    # What libraries have to say of their inner life is nothing that they check for Values.
    root.setLevel(max(level, logging.INFO))
    for package in _OURS:
        logging.getLogger(package).setLevel(level)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # pydicom's quote Values, and no operator can act on any library's.
    warnings.simplefilter("ignore")


def check_settings(environ: Mapping[str, str] = os.environ) -> None:
    """Raises: ValueError naming the setting that is wrong, for a person to read at a start."""
    level, wish = environ.get("AXIOM_LOG_LEVEL", ""), environ.get("AXIOM_LOG_FORMAT", "")
    if level and level.upper() not in logging.getLevelNamesMapping():
        raise ValueError("AXIOM_LOG_LEVEL is debug, info, warning or error")
    if wish and wish.lower() not in _FORMATS:
        raise ValueError(f"AXIOM_LOG_FORMAT is {' or '.join(_FORMATS)}")


def _is_text(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    wish = environ.get("AXIOM_LOG_FORMAT", "").lower()
    return is_terminal if wish not in _FORMATS else wish == "text"


def _level(environ: Mapping[str, str], default: int) -> int:
    """What is not a level is none: a process is not to fail for want of words."""
    return logging.getLevelNamesMapping().get(environ.get("AXIOM_LOG_LEVEL", "").upper(), default)
