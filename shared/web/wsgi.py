"""The HTTP side as one WSGI application, or as the two halves that the cloud runs apart."""

from __future__ import annotations

from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from shared.pipeline.ports import Ports
from shared.web import (
    access,
    clean_ups,
    configuration,
    crosswalks,
    destinations,
    dicomweb,
    documentation,
    exceptions,
    health,
    instances,
    jobs,
    problems,
    reconciliations,
    rules,
    studies,
    versions,
)
from shared.web.keys import ApiKeys

VERSION = "0.1.0"
API, DICOMWEB = "api", "dicomweb"

_API_KEY_SCHEME: dict[str, Any] = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Api-Key KEY`",
    }
}


def create_app(
    ports: Ports, *, preset_key: str | None = None, serving: tuple[str, ...] = (API, DICOMWEB)
) -> OpenAPI:
    """Build the application over `ports`; nothing is read or connected until a request comes.

    `preset_key` is an admin key that is valid besides those that were made.
    """
    app = OpenAPI(
        "axiom-flow",
        info=Info(title="Axiom Flow", version=VERSION),
        security_schemes=_API_KEY_SCHEME,
        doc_ui=False,
        validation_error_status=422,
        validation_error_model=problems.Problem,
        validation_error_callback=problems.of_validation_error,
        static_folder=None,
    )
    # A redirect would have a client send a body of any size twice.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    problems.install(app)
    access.install(app, ApiKeys(ports.documents, ports.clock, preset=preset_key))
    app.register_api(health.blueprint(health.HealthReport(ports.health_checks, ports.clock)))
    if API in serving:
        app.register_api(clean_ups.blueprint(ports))
        app.register_api(reconciliations.blueprint(ports))
        app.register_api(configuration.blueprint(ports.configuration))
        app.register_api(versions.blueprint(ports))
        app.register_api(rules.blueprint(ports))
        app.register_api(crosswalks.blueprint(ports))
        app.register_api(exceptions.blueprint(ports))
        app.register_api(instances.blueprint(ports))
        app.register_api(studies.blueprint(ports))
        app.register_api(jobs.blueprint(ports))
        app.register_api(destinations.blueprint(ports))
        app.register_blueprint(documentation.blueprint(app))
    if DICOMWEB in serving:
        app.register_api(
            dicomweb.blueprint(ports.receiver, lambda: ports.configuration.get().settings)
        )
    return app
