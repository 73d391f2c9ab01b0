"""One run: send under chaos for a while, let everything settle, and judge."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests

from infra.local.terminal import CommandFailedError
from infra.local.torture import fairness
from infra.local.torture.chaos import Chaos, Queue
from infra.local.torture.commitments import Committer, Promises
from infra.local.torture.configuration import configuration, folders
from infra.local.torture.instances import ARCHIVE, DESTINATIONS, PACS, WEB, Instance, Kind, Maker
from infra.local.torture.ledger import Inbox, Ledger
from infra.local.torture.moods import Temper
from infra.local.torture.scp import MisbehavingScp
from infra.local.torture.senders import Sender, senders_here
from infra.local.torture.stow_server import MisbehavingStowServer
from infra.local.torture.system import System
from infra.local.torture.verdict import (
    DELIVERED,
    DISCARDED,
    EXCEPTION,
    HELD,
    LOST,
    QUARANTINED,
    SUPERSEDED,
    Books,
    Verdict,
    fill,
    judge,
)
from shared import bootstrap
from shared.environment import Environment

# Senders pause while so many messages are in the queue: the point is to break things often, not to
# pile up work that then takes its time.
_MOST_IN_QUEUE = 1000
# By each way to send.
_SENDERS = 2
_LOOK_EVERY_S = 0.5
SETTLED_WITHIN_S = 300.0
_HURRY_EVERY_S = 2.0
_CONFIGURED_WITHIN_S = 30.0
# Each process goes on for half a second with the configuration that it knows.
_IN_FORCE_AFTER_S = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, by which lot, and in how many rounds fairness is measured before."""

    seconds: float
    seed: int
    fairness_rounds: int = fairness.ROUNDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    plan: Plan
    verdict: Verdict
    sent: int
    acknowledged: int
    kills: int
    crashes: int
    poisoned: int
    by_hand: int
    # Requests for storage commitment, and Instances that were committed.
    committed: tuple[int, int]
    seconds: float
    # Speed beside a hostile sender as a share of the speed without; None where not measured.
    fairness: float | None
    # What went wrong whatever the machine was busy with; slowness is not among it.
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything that docs/reliability.md promises was kept."""
        return not self.not_kept

    @property
    def not_kept(self) -> tuple[str, ...]:
        """The faults, and unfairness, which a busy machine can feign."""
        if self.fairness is None or self.fairness >= fairness.LEAST_RATIO:
            return self.faults
        return (*self.faults, f"the honest sender kept {self.fairness:.0%} of its speed")

    def as_json(self) -> dict[str, Any]:
        """The figures. What is acknowledged is delivered, an exception, held or lost: `delivered`
        is what is everywhere where it belongs, and of it `superseded` where a later version has its
        place, and `discarded` what belongs nowhere; `held` waits for a person, and of it
        `quarantined` because of other bytes.
        """
        found = self.verdict.instances
        return {
            "acknowledged": self.acknowledged,
            "delivered": found[DELIVERED] + found[SUPERSEDED] + found[DISCARDED],
            "duplicates": self.verdict.duplicates,
            "exceptions": found[EXCEPTION],
            "held": found[HELD] + found[QUARANTINED],
            "lost": found[LOST],
            "kills": self.kills + self.crashes,
            "seconds": round(self.seconds, 1),
            "quarantined": found[QUARANTINED],
            "superseded": found[SUPERSEDED],
            "discarded": found[DISCARDED],
        }


def torture(folder: Path, plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """Run `plan` below `folder`, which is empty and stays.

    Raises: CommandFailedError if the system cannot be started at all.
    """
    began_s = time.monotonic()
    run = _Run(folder, plan, tell)
    try:
        run.prepare()
        ratio = run.measure_fairness() if plan.fairness_rounds else None
        run.wreak_havoc()
        run.settle()
    finally:
        run.stop()
    return run.outcome(ratio, time.monotonic() - began_s)


class _Run:
    def __init__(self, folder: Path, plan: Plan, tell: Callable[[str], None]) -> None:
        self._folder, self._plan, self._tell = folder, plan, tell
        self._random = random.Random(plan.seed)  # noqa: S311
        self._ledger = Ledger()
        self._inboxes = {name: Inbox(self._ledger) for name in DESTINATIONS}
        self._tempers = [Temper(self._lot()), Temper(self._lot())]
        self._promises = Promises(self._ledger, self._inboxes)
        self._scp = MisbehavingScp(
            self._ledger, self._inboxes[PACS], self._tempers[0], self._promises.take
        )
        self._web = MisbehavingStowServer(self._inboxes[WEB], self._tempers[1])
        self._system = System(folder / "home", folder / "log.jsonl")
        self._maker = Maker(folder / "sent", self._lot())
        self._making = threading.Lock()
        self._is_backed_up = threading.Event()
        self._queue = Queue(folder / "home")
        self._chaos = Chaos(self._system, self._lot())
        self._faults: list[str] = []

    def prepare(self) -> None:
        """Start and configure the system."""
        self._tell(f"seed {self._plan.seed}; everything is in {self._folder}")
        self._system.start()
        document = configuration(self._folder, self._scp.port, self._web.base_url)
        self._system.request("PUT", "/api/v1/config", json=document).raise_for_status()
        time.sleep(_IN_FORCE_AFTER_S)

    def measure_fairness(self) -> float:
        """Before anything is killed."""
        self._tell("an honest sender beside a hostile one")
        return fairness.measure(
            self._system,
            self._ledger,
            lambda: self._make(Kind.PLAIN),
            self._plan.fairness_rounds,
        )

    def wreak_havoc(self) -> None:
        """Send and destroy for as long as planned."""
        ways = senders_here()
        self._tell(f"{self._plan.seconds:.0f} s of havoc; sending by {', '.join(ways)}")
        self._system.stop()
        self._chaos.start()
        senders: list[Sender | Committer] = [
            Sender(
                self._system,
                self._ledger,
                way,
                self._make,
                self._correct,
                lambda: not self._is_backed_up.is_set(),
                self._lot(),
            )
            for way in ways.values()
            for _ in range(_SENDERS)
        ]
        senders.append(Committer(self._system, self._ledger, self._promises, self._lot()))
        watcher = threading.Thread(target=self._watch_queue, args=(over := threading.Event(),))
        watcher.start()
        for sender in senders:
            sender.start()
        try:
            self._chaos.run(time.monotonic() + self._plan.seconds)
        finally:
            for sender in senders:
                sender.stop()
            over.set()
            watcher.join()
        for sender in senders:
            sender.join()

    def settle(self) -> None:
        """Peers behave, nobody kills, and the queue empties, or something is wrong."""
        self._tell("the peers behave from now on; waiting until all is settled")
        for temper in self._tempers:
            temper.behave()
        # Without crash points.
        self._system.stop()
        self._system.start()
        self._restore()
        deadline_s = time.monotonic() + SETTLED_WITHIN_S
        hurry_at_s = time.monotonic() + _HURRY_EVERY_S
        while depth := self._queue.depth():
            if time.monotonic() > deadline_s:
                self._faults.append(f"{depth} messages are in the queue still")
                break
            if time.monotonic() > hurry_at_s:
                self._queue.hurry()
                hurry_at_s = time.monotonic() + _HURRY_EVERY_S
            time.sleep(_LOOK_EVERY_S)

    def stop(self) -> None:
        """Stop everything."""
        self._system.stop()
        self._scp.stop()
        self._web.stop()

    def outcome(self, ratio: float | None, seconds: float) -> Outcome:
        """Judge, over the home of the stopped system."""
        for name, folder in folders(self._folder).items():
            fill(self._inboxes[name], folder)
        environment = replace(Environment.read({}), home=self._system.home)
        discarded = self._chaos.operator.discarded
        books = Books(bootstrap.embedded(environment), self._queue, discarded)
        verdict = judge(self._ledger, self._inboxes, books)
        sent, acknowledged = self._ledger.counts
        faults = [*self._faults]
        if verdict.instances[LOST]:
            faults.append(f"{verdict.instances[LOST]} acknowledged Instances are lost")
        if verdict.wrong:
            faults.append(f"{verdict.wrong} Instances arrived with wrong bytes")
        if verdict.false_alarms:
            faults.append(f"{verdict.false_alarms} exceptions are about Instances that arrived")
        untrue = self._promises.lies | {
            i for i in self._promises.committed if i not in self._inboxes[ARCHIVE]
        }
        if untrue:
            faults.append(f"{len(untrue)} Instances were committed and not delivered")
        asked, untold = self._promises.counts
        if untold > verdict.untold:
            faults.append(f"{untold} requests for storage commitment were not reported")
        poison_recorded = verdict.entries["malformed-message"]
        if poison_recorded < self._chaos.poisoned:
            faults.append(f"{self._chaos.poisoned} messages poisoned, {poison_recorded} recorded")
        return Outcome(
            self._plan,
            verdict,
            sent,
            acknowledged,
            self._system.kills,
            self._system.crashes(),
            self._chaos.poisoned,
            self._chaos.operator.done,
            (asked, len(self._promises.committed)),
            seconds,
            ratio,
            tuple(faults),
        )

    def _restore(self) -> None:
        deadline_s = time.monotonic() + _CONFIGURED_WITHIN_S
        while True:
            try:
                if self._chaos.stored_stamp() < self._chaos.confirmed_stamp:
                    self._faults.append("a confirmed change of the configuration is gone")
                self._chaos.restore()
            except requests.RequestException as error:
                if time.monotonic() > deadline_s:
                    raise CommandFailedError(
                        f"the configuration cannot be restored: {type(error).__name__}",
                        code="torture",
                    ) from None
                time.sleep(_LOOK_EVERY_S)
            else:
                return

    def _watch_queue(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_EVERY_S):
            if self._queue.depth() > _MOST_IN_QUEUE:
                self._is_backed_up.set()
            else:
                self._is_backed_up.clear()

    def _make(self, kind: Kind | None = None) -> Instance:
        with self._making:
            instance = self._maker.make(kind)
        self._ledger.made(instance)
        return instance

    def _correct(self, instance: Instance) -> Instance:
        with self._making:
            corrected = self._maker.correct(instance)
        self._ledger.made(corrected)
        return corrected

    def _lot(self) -> random.Random:
        return random.Random(self._random.getrandbits(64))  # noqa: S311


def remove(folder: Path) -> None:
    """Take away what a run left."""
    shutil.rmtree(folder, ignore_errors=True)
