"""The `stages` process: validation, rules, the exception log and jobs, on the queue's messages."""

from __future__ import annotations

from functions.apply_rules.main import apply_rules
from functions.record_exception.main import record_exception
from functions.run_job.main import run_job
from functions.validate_instance.main import validate_instance
from infra.local.work import run_handlers
from shared.messages import Topic

if __name__ == "__main__":
    run_handlers(
        "stages",
        {
            Topic.INSTANCE_RECEIVED: validate_instance,
            Topic.INSTANCE_ACCEPTED: apply_rules,
            Topic.EXCEPTION_RAISED: record_exception,
            Topic.JOB_REQUESTED: run_job,
        },
    )
