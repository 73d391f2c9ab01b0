"""Documents that clients send: JSON, or YAML where a resource takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import yaml
from flask import request

from shared.errors import Fault
from shared.web.media_types import JSON, MediaType
from shared.web.problems import ProblemError
from shared.web.request_body import RequestBody, RequestTooLargeError, announced_length

MAX_DOCUMENT_BYTES = 8 << 20
MAX_REASON_LENGTH = 1000
MERGE_PATCH = "application/merge-patch+json"
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


def received_document(*, yaml_too: bool = False, merge_patch: bool = False) -> Mapping[str, Any]:
    """The object that the request's body is; `merge_patch`: or a JSON Merge Patch.

    Raises: ProblemError 400 if it breaks off, 413, 415, 422 if it is no object or cannot be read.
    """
    content_type = MediaType.parse(request.headers.get("Content-Type", "")).name
    is_json = content_type == JSON or content_type.endswith("+json")
    if content_type == MERGE_PATCH and not merge_patch:
        is_json = False
    if not is_json and not (yaml_too and content_type in YAML):
        takes = f"{JSON} or {YAML[0]}" if yaml_too else JSON
        takes = f"{MERGE_PATCH} or {JSON}" if merge_patch else takes
        raise ProblemError(
            415,
            "unsupported-media-type",
            f"The resource takes {takes}.",
            hint=f"Send the header `Content-Type: {JSON}`.",
        )
    text = _body()
    document = _parse_json(text) if is_json else parse_yaml(text)
    if not isinstance(document, Mapping):
        fault = Fault("(document)", "is no object", "Send `{...}` with the names of its fields.")
        raise ProblemError(422, "invalid-document", "1 fault", faults=[fault])
    return document


def change_reason() -> str:
    """Why the request changes something, in the words of who makes it: `Change-Reason`."""
    # WSGI hands bytes over as Latin-1 (PEP 3333).
    reason = request.headers.get("Change-Reason", "").strip()
    return reason.encode("latin-1", "replace").decode("utf-8", "replace")[:MAX_REASON_LENGTH]


def _body() -> str:
    length = announced_length(
        request.content_length,
        request.headers.get("Transfer-Encoding", ""),
        request.environ.get("SERVER_PROTOCOL", ""),
    )
    try:
        body = RequestBody(request.environ["wsgi.input"], length, max_bytes=MAX_DOCUMENT_BYTES)
        pieces = []
        while piece := body.read(MAX_DOCUMENT_BYTES):
            pieces.append(piece)
    except RequestTooLargeError as error:
        raise ProblemError(
            413, "request-too-large", f"The document is larger than {error.args[0]} bytes."
        ) from None
    except ValueError:
        raise ProblemError(400, "malformed-body", "The body breaks off.") from None
    try:
        return b"".join(pieces).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unreadable("it is not UTF-8") from None


def _parse_json(text: str) -> object:
    try:
        parsed: object = json.loads(
            text, object_pairs_hook=_unique_names, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _unreadable(f"{error.msg} at {where}") from None
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise _unreadable(str(error)) from None
    return parsed


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        # Parsers differ in which of the two counts (RFC 8259 4), so neither does.
        raise ValueError("an object has a name twice")
    return document


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


class _PlainLoader(yaml.SafeLoader):
    """YAML as far as it is JSON: no dates, and no aliases, which can make much of little."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the name is PyYAML's)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> object:
    """The plain value that a text is in YAML, without dates and aliases.

    Raises: ProblemError 422.
    """
    try:
        # A subclass of SafeLoader: it makes plain values alone.
        parsed: object = yaml.load(text, Loader=_PlainLoader)  # noqa: S506
        json.dumps(parsed, allow_nan=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _unreadable(f"{error.problem}{where}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError):
        hint = "Aliases, binary values and names that are no text are not taken."
        raise _unreadable("it is no YAML of plain values", hint) from None
    return parsed


def _unreadable(reason: str, hint: str = "") -> ProblemError:
    fault = Fault("(document)", f"cannot be read: {reason}", hint)
    return ProblemError(422, "malformed-document", "The document cannot be read.", faults=[fault])
