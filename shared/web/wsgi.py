"""The HTTP side as one WSGI application, or as the two halves that the cloud runs apart."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from shared.identity.identity import Identity
from shared.identity.settings import IdentitySettings
from shared.pipeline import edges
from shared.pipeline.admission import Admission
from shared.pipeline.ports import HealthCheck, Ports
from shared.web import (
    access,
    audit,
    clean_ups,
    configuration,
    content_encoding,
    crosswalks,
    data_browser,
    destinations,
    dicomweb,
    documentation,
    exceptions,
    health,
    instances,
    jobs,
    login,
    metrics,
    parameters,
    problems,
    pulls,
    reconciliations,
    rules,
    ruleset_rules,
    sources,
    standardize,
    studies,
    uploads,
    users,
    versions,
)

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
    ports: Ports,
    settings: IdentitySettings | None = None,
    *,
    serving: tuple[str, ...] = (API, DICOMWEB),
    worklists: HealthCheck = lambda: None,
) -> OpenAPI:
    """Build the application over `ports`; nothing is read or connected until a request comes.

    `worklists` says of those that listeners show here what is wrong with them.
    """
    identity = Identity(ports.documents, ports.secrets, ports.clock, settings or IdentitySettings())
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
    access.install(app, identity, lambda: ports.configuration.get().settings, ports.clock)
    content_encoding.install(app)
    parameters.install(app)
    if proxies := identity.settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )
    report = health.HealthReport(ports.health_checks, ports.clock)
    app.register_api(health.blueprint(report, _queue_check(ports), _edges_check(ports), worklists))
    if API in serving:
        app.register_api(metrics.blueprint(ports))
        app.register_api(clean_ups.blueprint(ports))
        app.register_api(reconciliations.blueprint(ports))
        app.register_api(configuration.blueprint(ports.configuration))
        app.register_api(ruleset_rules.blueprint(ports.configuration))
        app.register_api(versions.blueprint(ports))
        app.register_api(rules.blueprint(ports))
        app.register_api(crosswalks.blueprint(ports))
        app.register_api(exceptions.blueprint(ports))
        app.register_api(instances.blueprint(ports))
        app.register_api(studies.blueprint(ports))
        app.register_api(standardize.blueprint(ports))
        app.register_api(jobs.blueprint(ports))
        app.register_api(destinations.blueprint(ports))
        app.register_api(sources.blueprint(ports))
        app.register_api(uploads.blueprint(ports))
        app.register_api(pulls.blueprint(ports))
        app.register_api(data_browser.blueprint(ports))
        app.register_api(audit.blueprint(ports))
        app.register_api(users.blueprint(identity, ports.clock))
        app.register_api(users.own_blueprint(identity, ports.clock))
        app.register_api(login.open_blueprint(identity, ports.clock))
        app.register_api(login.blueprint(identity, ports.clock))
        app.register_blueprint(documentation.blueprint(app))
    if DICOMWEB in serving:
        app.register_api(
            dicomweb.blueprint(ports.receiver, lambda: ports.configuration.get().settings)
        )
    return app


def _queue_check(ports: Ports) -> HealthCheck:
    """In words why nobody is let in, as the gateway would say it."""

    @cache
    def admission() -> Admission:
        return Admission(ports.objects, ports.queue, ports.clock)

    def check() -> str | None:
        return "; ".join(admission().closed(ports.configuration.get().settings)) or None

    return check


def _edges_check(ports: Ports) -> HealthCheck:
    """In words what is wrong with gateways on premises; asked as seldom as any other check."""
    report = health.HealthReport(
        {"edges": lambda: edges.fault_of_any(ports.documents, ports.clock)}, ports.clock
    )
    return lambda: report.faults()["edges"]
