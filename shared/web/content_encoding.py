"""Bodies come as they are: one that says it is compressed is refused before it is read."""

from __future__ import annotations

from flask import Flask, request

from shared.web.problems import ProblemError


def install(app: Flask) -> None:
    """Have `app` answer 415 to a Content-Encoding (RFC 9110 8.4): a small body could be a large
    one, and limits are in bytes that arrive.
    """

    def check() -> None:
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            raise ProblemError(
                415,
                "unsupported-content-encoding",
                "The body has a Content-Encoding.",
                hint="Send it as it is.",
                headers={"Accept-Encoding": "identity"},
            )

    app.before_request(check)
