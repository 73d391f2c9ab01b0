"""The HTTP side of the demo's receiving system, which takes its API key as a bearer token.

A `dicomweb` destination signs in with HTTP's own schemes, and our API has one of its own: what lies
between them here is this one header field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.local.http import create_app, serve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_FIELD = "HTTP_AUTHORIZATION"


class BearerAsApiKey:
    """Hands a request on with `Authorization: Bearer KEY` written as `Api-Key KEY`."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Called by the server for each request."""
        scheme, _, key = environ.get(_FIELD, "").partition(" ")
        if scheme.lower() == "bearer":
            environ[_FIELD] = f"Api-Key {key}"
        return self._app(environ, start_response)


if __name__ == "__main__":
    serve(lambda: BearerAsApiKey(create_app()))
