"""Serves the one function that FUNCTION_TARGET names, as Cloud Run starts it:
`python -m infra.images.serve`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.images.pushes import pushed_to
from shared import exporting, logs, preflight
from shared.adapters.cloud.environment import CloudEnvironment
from shared.environment import Environment, Platform
from shared.messages import Topic
from shared.web.server import Server

# What people ask is a web application, here with the topics that it publishes to; what Google's
# services call is not, and starts sooner.
FOR_PEOPLE: Mapping[str, Sequence[Topic]] = {
    "api": (
        Topic.INSTANCE_RECEIVED,
        Topic.INSTANCE_ACCEPTED,
        Topic.STANDARDIZATION_REQUESTED,
        Topic.DELIVERY_REQUESTED,
        Topic.EXCEPTION_RAISED,
        Topic.JOB_REQUESTED,
        Topic.COMMITMENT_REQUESTED,
    ),
    "dicomweb": (Topic.INSTANCE_RECEIVED, Topic.EXCEPTION_RAISED, Topic.COMMITMENT_REQUESTED),
}
_FUNCTIONS = Path(__file__).resolve().parents[2] / "functions"


def main() -> None:
    """Serve until SIGTERM on the port that the platform says.

    Raises: SystemExit naming the setting that is wrong.
    """
    target = os.environ.get("FUNCTION_TARGET", "")
    if not target.isidentifier() or not (_FUNCTIONS / target / "main.py").is_file():
        raise SystemExit("FUNCTION_TARGET is not the name of a function")
    logs.configure(target)
    try:
        _check_settings()
    except ValueError as error:
        raise SystemExit(str(error)) from None
    Server(
        # What is before it lets nobody in whom IAM does not.
        os.environ.get("AXIOM_FUNCTION_HOST") or "0.0.0.0",  # noqa: S104
        int(os.environ.get("PORT") or 8080),
        lambda: _loaded(target),
        threads=int(os.environ.get("AXIOM_THREADS") or 16),
        http2=os.environ.get("AXIOM_HTTP2", "").lower() == "true",
    ).run()


def _check_settings() -> None:
    """Raises: ValueError naming the setting that is wrong or missing."""
    exporting.check_settings()
    if Environment.read().platform is Platform.CLOUD:
        CloudEnvironment.read()


def _loaded(target: str) -> Any:
    """Called in the worker: Google's clients are not to be carried over a fork."""
    # Those that are pushed to tell what is missing when they need it: they are to start soon.
    if target in FOR_PEOPLE:
        preflight.tell(FOR_PEOPLE[target])
    return application(target)


def application(target: str) -> Any:
    """The function as a WSGI application; each also runs under functions-framework as it is."""
    if target not in FOR_PEOPLE:
        entry_point = getattr(importlib.import_module(f"functions.{target}.main"), target)
        return pushed_to(entry_point)
    import functions_framework

    return functions_framework.create_app(  # type: ignore[no-untyped-call]
        target, str(_FUNCTIONS / target / "main.py"), signature_type="http"
    )


if __name__ == "__main__":
    main()
