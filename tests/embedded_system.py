"""The embedded system in one process and without threads, with a clock that is told the time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from shared import bootstrap
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.environment import Environment
from shared.errors import ObjectMissingError
from shared.messages import (
    CommitmentRequested,
    DeliveryRequested,
    ExceptionRaised,
    InstanceAccepted,
    InstanceReceived,
    JobRequested,
    Receipt,
    Source,
    Stage,
    StandardizationRequested,
    Topic,
)
from shared.pipeline import deliver, jobs, report_commitment, rules, standardize, validate
from shared.pipeline.ports import Ports
from shared.pipeline.push import PushRequest, PushResponse, answer
from shared.pipeline.retention import Cleaner, Swept
from tests.data import build
from tests.fakes import FakeClock

DAY = 86400.0
SOURCE = Source("dimse", "main", calling_ae_title="CT1", peer_address="10.1.2.3")
STAGES: dict[Topic, tuple[Any, Stage, Any]] = {
    Topic.INSTANCE_RECEIVED: (InstanceReceived, Stage.VALIDATE, validate.run),
    Topic.INSTANCE_ACCEPTED: (InstanceAccepted, Stage.RULES, rules.run),
    Topic.STANDARDIZATION_REQUESTED: (
        StandardizationRequested,
        Stage.STANDARDIZE,
        standardize.run,
    ),
    Topic.DELIVERY_REQUESTED: (DeliveryRequested, Stage.DELIVER, deliver.run),
    Topic.JOB_REQUESTED: (JobRequested, Stage.JOB, jobs.run),
    Topic.COMMITMENT_REQUESTED: (CommitmentRequested, Stage.COMMITMENT, report_commitment.run),
    Topic.EXCEPTION_RAISED: (
        ExceptionRaised,
        Stage.RECORD,
        lambda message, ports: ports.exceptions.record(message),
    ),
}


class System:
    """The embedded system with a clock that is told the time."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        self.home = home
        environment = Environment.read({"AXIOM_HOME": str(home)})
        self.ports: Ports = bootstrap.embedded(environment, self.clock)
        self.ports.configuration.apply(
            {
                "settings": {
                    "default_route": ["primary-storage"],
                    "min_free_bytes": 0,
                    "max_queue_age_s": 0,
                    **settings,
                }
            },
            by="test",
        )
        self.cleaner = Cleaner(self.ports)

    def receive(self, name: str = "one", **attributes: Any) -> Receipt:
        with self.ports.receiver.begin(SOURCE) as staging:
            staging.write(build.ct(instance=name, **attributes))
            return staging.commit()

    def work(self, *topics: Topic, refused: bool = False) -> list[int]:
        """Work off the queue, or what of it is of these topics; the HTTP statuses.

        What is not acknowledged fails the test, unless `refused`: then it is due in a minute.
        """
        statuses = []
        bus = self.ports.bus
        assert isinstance(bus, SqliteMessageBus)
        while leased := bus.lease(topics or list(STAGES), limit=10, lease_s=60):
            for message in leased:
                kind, stage, run = STAGES[Topic(message.topic)]
                headers = {"x-goog-pubsub-message-id": "1", **message.attributes}
                request = PushRequest(message.data, headers)
                topic, to_run = Topic(message.topic), partial(run, ports=self.ports)
                response: PushResponse = answer(request, kind, stage, topic, to_run, self.ports)
                statuses.append(response[1])
                assert refused or response[1] == 204, response
                if response[1] == 204:
                    bus.settle(acknowledged=[message.message_id])
                else:
                    bus.settle(later=[(message.message_id, 60.0)])
        return statuses

    def later(self, seconds: float) -> Swept:
        """Let time pass, and clean up to the end of a cycle."""
        self.clock.advance(seconds)
        return self.cleaner.run(for_s=1e9)

    def has(self, receipt: Receipt) -> bool:
        try:
            with self.ports.objects.open(receipt.file.object_name):
                return True
        except ObjectMissingError:
            return False

    def state(self, receipt: Receipt) -> str:
        found = self.ports.documents.get("instances", receipt.receipt_id)
        return "" if found is None else str(found.data["state"])

    def delivered(self) -> list[Path]:
        return sorted((self.home / "storage").rglob("*.dcm"))
