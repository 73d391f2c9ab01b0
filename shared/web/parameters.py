"""Query parameters that a route does not have are refused, where they would mean nothing."""

from __future__ import annotations

import inspect
from functools import cache

from flask import Flask, request

from shared.errors import Fault
from shared.web import permissions
from shared.web.problems import ProblemError

# Clients of DICOMweb and scrapers of metrics have habits of their own.
_OF_OTHERS = frozenset({"dicomweb", "metrics"})


def install(app: Flask) -> None:
    """Have `app` answer 422 to parameters of routes that take none: who adds `dry_run` to what
    knows no dry run would have it done. Routes with parameters judge them by themselves.
    """

    @cache
    def takes_any(endpoint: str) -> bool:
        parameters = inspect.signature(app.view_functions[endpoint]).parameters
        return "query" in parameters or endpoint.partition(".")[0] in _OF_OTHERS

    def check() -> None:
        endpoint = request.endpoint
        if not request.args or endpoint is None or permissions.is_open(endpoint):
            return
        if not takes_any(endpoint):
            faults = [Fault(name, "is no parameter here") for name in request.args]
            raise ProblemError(
                422, "invalid-request", "What the request says does not fit.", faults=faults
            )

    app.before_request(check)
