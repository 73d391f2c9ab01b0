"""The `stages` process: validation, rules, standard terms, the exception log and jobs, on messages
of the queue, and Studies and the clean-up, on timers.
"""

from __future__ import annotations

from functools import partial

from functions.apply_rules.main import apply_rules
from functions.clean_up.main import clean_up
from functions.complete_studies.main import complete_studies
from functions.record_exception.main import record_exception
from functions.run_job.main import run_job
from functions.standardize_attributes.main import standardize_attributes
from functions.validate_instance.main import validate_instance
from infra.local.timer import calling, is_worked_off
from infra.local.work import run_handlers
from shared import bootstrap
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.messages import Topic


def main() -> None:
    """Work until SIGTERM or SIGINT, and keep the timers."""
    bus = bootstrap.from_environment().bus
    assert isinstance(bus, SqliteMessageBus)
    with (
        calling(complete_studies, once=partial(is_worked_off, bus)),
        calling(clean_up, every_s=3.0),
    ):
        work()


def work() -> None:
    """Work until SIGTERM or SIGINT; any number of processes may."""
    run_handlers(
        "stages",
        {
            Topic.INSTANCE_RECEIVED: validate_instance,
            Topic.INSTANCE_ACCEPTED: apply_rules,
            Topic.STANDARDIZATION_REQUESTED: standardize_attributes,
            Topic.EXCEPTION_RAISED: record_exception,
            Topic.JOB_REQUESTED: run_job,
        },
        deferred=[Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED],
        at_once=[Topic.INSTANCE_ACCEPTED],
    )
