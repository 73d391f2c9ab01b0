"""Serve one function: `python -m shared.web.function NAME`, or FUNCTION_TARGET=NAME.

What a container of the cloud platform runs: the function behind functions-framework, served by
gunicorn with as many threads as requests come at once (AXIOM_THREADS). AXIOM_HTTP2=true takes
HTTP/2 without TLS in place of HTTP/1.1. On SIGTERM requests that run
get eight seconds, since Cloud Run kills after ten.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from shared import logs
from shared.web.server import THREADS, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

_FUNCTIONS = "functions"


def main() -> None:
    """Serve until SIGTERM. Exits with one line where the settings are wrong."""
    name = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FUNCTION_TARGET", "")
    if not name.isidentifier():
        sys.exit("function: say which: python -m shared.web.function NAME")
    logs.configure(name)
    try:
        threads = int(os.environ.get("AXIOM_THREADS") or THREADS)
        port = int(os.environ.get("PORT") or 8080)
        _check_settings()
    except ValueError as error:
        sys.exit(f"function: {error}")
    host = os.environ.get("AXIOM_FUNCTION_HOST") or "0.0.0.0"  # noqa: S104 (Cloud Run asks for it)
    http2 = os.environ.get("AXIOM_HTTP2", "").lower() == "true"
    Server(host, port, lambda: _load(name), threads=threads, http2=http2).run()


def _check_settings() -> None:
    from shared.bootstrap import Environment, Platform

    if Environment.read().platform is Platform.CLOUD:
        from shared.adapters.cloud.environment import CloudEnvironment

        CloudEnvironment.read()


def _load(name: str) -> WSGIApplication:
    import functions_framework

    import functions

    source = os.path.join(functions.__path__[0], name, "main.py")
    app: WSGIApplication = functions_framework.create_app(  # type: ignore[no-untyped-call]
        name, source, "http"
    )
    threading.Thread(target=_look_for_what_is_missing, name="preflight", daemon=True).start()
    return app


def _look_for_what_is_missing() -> None:
    """One line for each thing that Terraform has not applied; the function serves meanwhile."""
    from shared import bootstrap

    for fault in bootstrap.faults():
        log.error("not applied", extra={"fault": fault})


if __name__ == "__main__":
    main()
