"""The `http` process: the HTTP side, whose /health speaks for the other processes too."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from infra.local import heartbeat
from infra.local.part import PARTS_VARIABLE
from shared import bootstrap, logs
from shared.environment import Environment
from shared.identity.settings import IdentitySettings
from shared.metrics_folder import MetricsFolder
from shared.web.server import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from shared.adapters.archives import Archives
    from shared.pipeline.ports import HealthCheck, Ports

_ASK_WORKLISTS_EVERY_S = 30.0


def main() -> None:
    """Serve where the environment says until SIGTERM."""
    logs.configure("http")
    environment = Environment.read()
    Server(environment.http_host, environment.http_port, _create_app, in_turn=True).run()


def _create_app() -> WSGIApplication:
    """The API and DICOMweb, with a health check for each part that the supervisor runs."""
    from shared.web.wsgi import create_app as create

    environment = Environment.read()
    ports = bootstrap.from_environment()
    run_dir = environment.home / "run"
    # Gunicorn has forked since this part began to write what its parent counts.
    MetricsFolder(run_dir / "metrics").keep("http")
    parts = os.environ.get(PARTS_VARIABLE, "").split()
    checks = {part: partial(heartbeat.fault, run_dir, part) for part in parts}
    ports = replace(ports, health_checks={**ports.health_checks, **checks})
    return create(ports, IdentitySettings.read(), worklists=_worklists_check(ports, environment))


def _worklists_check(ports: Ports, environment: Environment) -> HealthCheck:
    """In words which worklists cannot be shown to modalities; a database may take long to say so,
    and is asked as seldom as that.
    """

    @cache
    def archives() -> Archives:
        from shared.adapters.archives import Archives

        return Archives(ports.configuration.get, ports.secrets, ports.clock, environment.home)

    def check() -> str | None:
        return "; ".join(why for why in archives().worklist_faults().values() if why) or None

    from shared.web.health import KeptCheck

    return KeptCheck(check, ports.clock, _ASK_WORKLISTS_EVERY_S)
