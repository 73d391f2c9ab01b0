"""A function that is fed by pushes as a WSGI application, without a web framework to import.

It takes what functions-framework would hand it: header fields and a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

# Pub/Sub's largest message is 10 MB, a third more in base64.
_MAX_BODY_BYTES = 16 * 1024 * 1024

EntryPoint = Callable[[Any], tuple[str, int, Mapping[str, str]]]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class _Headers:
    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str) -> str | None:
        """A field in any case."""
        key = name.upper().replace("-", "_")
        value = self._environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}")
        return None if value is None else str(value)


class _Pushed:
    def __init__(self, headers: _Headers, body: bytes) -> None:
        self.headers, self._body = headers, body

    def get_data(self) -> bytes:
        """The body."""
        return self._body


def pushed_to(
    entry_point: EntryPoint,
) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """Serves `entry_point` at every path; what is no POST, or too large, does not reach it."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body, status, headers = _call(entry_point, environ)
        data = body.encode()
        fields = {**headers, "Content-Type": "text/plain; charset=utf-8"}
        if status != HTTPStatus.NO_CONTENT:
            fields["Content-Length"] = str(len(data))
        start_response(f"{status} {HTTPStatus(status).phrase}", list(fields.items()))
        return [data] if data else []

    return answer


def _call(
    entry_point: EntryPoint, environ: Mapping[str, Any]
) -> tuple[str, int, Mapping[str, str]]:
    if environ["REQUEST_METHOD"] != "POST":
        return "a push is a POST", HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST"}
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdigit() and int(length) > _MAX_BODY_BYTES:
        return "the push is too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {}
    most = int(length) if length.isdigit() else _MAX_BODY_BYTES + 1
    body = environ["wsgi.input"].read(most)
    if len(body) > _MAX_BODY_BYTES:
        return "the push is too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {}
    return entry_point(_Pushed(_Headers(environ), body))
