"""What is rehearsed: Instances come in every way, processes die, messages are poisoned, callers lie
and notifications are lost; whatever was acknowledged is delivered or in the exception log.
"""

from __future__ import annotations

import random
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from infra.local.rehearse import emulators, notices
from infra.local.rehearse.configuring import PRIMARY, configure, healthcare_destination
from infra.local.rehearse.counting import count
from infra.local.rehearse.outcome import Outcome
from infra.local.rehearse.sending import DimseSender, Sent, stow
from infra.local.rehearse.services import Process
from infra.local.rehearse.signing import SigningKey
from infra.local.rehearse.system import FOR_PEOPLE, MAIN_PATH, System, running_system
from infra.local.rehearse.waiting import wait
from infra.local.terminal import CommandFailedError

# Timers come once a minute at Google; here they come so often while a rehearsal runs.
_TIMERS_EVERY_S = 2.0
_FEW = 4
_COUNTED = 20
_MALFORMED, _NOT_DICOM = "malformed-message", "not-dicom"

ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    instances: int = 40
    kills: int = 4
    rounds: int = 1
    seed: int = 0
    on_premises: bool = False


Tell = Callable[[str], None]
Files = dict[str, bytes]


def rehearse(folder: Path, plan: Plan, tell: Tell) -> Outcome:
    """The whole of it, in a system of its own. Raises: CommandFailedError where something that it
    needs is not installed or not ready.
    """
    check_tools()
    began_s = time.monotonic()
    with running_system(folder, tell, on_premises=plan.on_premises) as system:
        tell(f"counting what {_COUNTED} undisturbed Instances ask of Google")
        operations = count(system, _COUNTED)
        outcome = drive(system, folder, plan, tell)
    outcome.operations = operations
    outcome.ended_s = system.ended_s
    outcome.seconds = time.monotonic() - began_s
    return outcome


def check_tools() -> None:
    """Raises: CommandFailedError naming what is not installed."""
    if not emulators.are_installed():
        raise CommandFailedError(
            "Google's emulators are not installed",
            hint="Install gcloud with its components beta, pubsub-emulator and "
            "cloud-firestore-emulator, and Java.",
            code="not-installed",
        )
    if shutil.which("storescu") is None:
        raise CommandFailedError("dcmtk's storescu is not installed", code="not-installed")


def drive(system: System, folder: Path, plan: Plan, tell: Tell) -> Outcome:
    """Do all of it to a running system, whatever was done to it before."""
    run = _Run(system, folder, plan, tell)
    with timers(system):
        return run.whole()


class _Run:
    """One run; its Instances have UIDs that no other run has."""

    def __init__(self, system: System, folder: Path, plan: Plan, tell: Tell) -> None:
        self.system, self.plan, self.tell = system, plan, tell
        self.name = secrets.token_hex(4)
        self.folder = folder / self.name
        self.random = random.Random(plan.seed)  # noqa: S311
        self.outcome = Outcome()
        self.sent = Sent()

    def whole(self) -> Outcome:
        system, began_s = self.system, time.monotonic()
        self.configure(rulesets=[])
        self.before = self.logged()
        refused = self.lie()
        for number in range(self.plan.rounds):
            self.tell(f"storescu sends {self.plan.instances} CT Instances; processes are killed")
            self.send_and_kill(f"round-{number}")
        self.web()
        self.give_up()
        self.objects()
        self.stored_by_others()
        self.rule_changes()
        poisoned = self.poison()
        self.tell("waiting until all is where it should be")
        self.settle(poisoned)
        self.reconcile()
        found = self.logged() - self.before
        self.outcome.claim(
            "poisoned messages in the exception log", poisoned, poisoned, found[_MALFORMED]
        )
        self.outcome.claim(
            "a letter in the landing bucket, in the exception log", 1, 1, found[_NOT_DICOM]
        )
        self.outcome.claim("calls without a good token refused", refused[0], *refused)
        self.outcome.claim("messages that wait for ever", poisoned, 0, system.pushing.waiting)
        pushed = [pusher.count for pusher in system.pushing.pushers.values()]
        self.outcome.pushes = sum(one.pushes for one in pushed)
        self.outcome.pushed_again = sum(one.refused for one in pushed)
        self.outcome.seconds = time.monotonic() - began_s
        return self.outcome

    # ---- what is configured

    def configure(self, rulesets: list[Mapping[str, Any]], *sources: Mapping[str, Any]) -> None:
        _, store = self.system.source_store
        document = {
            "destinations": [
                healthcare_destination(PRIMARY, self.system.delivered),
                # Of those that Terraform gives a topic of their own.
                healthcare_destination(ARCHIVE, store),
            ],
            "rulesets": rulesets,
            "sources": sources,
            "settings": {"default_route": [PRIMARY]},
        }
        configure(self.system, **document)

    # ---- what comes in

    def files(self, way: str, count: int, kind: str = "ct") -> Files:
        from tests.data import build

        make = {"ct": build.ct, "mr": build.mr}[kind]
        names = [f"{self.name}-{way}-{number}" for number in range(count)]
        study = f"{self.name}-{way}"
        return {build.uid(name): make(64, 64, instance=name, study=study) for name in names}

    def took(self, sent: Sent) -> None:
        self.sent.files |= sent.files
        self.sent.acknowledged |= sent.acknowledged

    def await_delivered(self, uids: Collection[str]) -> None:
        """Wait for them; what does not come is for `reconcile` to tell."""
        wait(lambda: all(self.system.delivered.get(uid) for uid in uids), fails=False)

    def send_and_kill(self, way: str) -> None:
        files = self.files(way, self.plan.instances)
        before = len(self.system.delivered)
        half = len(files) // 2
        parts = [dict(list(files.items())[:half]), dict(list(files.items())[half:])]
        senders = [
            DimseSender(self.system, self.folder / f"{way}-{n}", part)
            for n, part in enumerate(parts)
        ]
        for sender in senders:
            sender.start()
        self.kill_gateway(senders)
        for number in range(self.plan.kills):
            enough = before + (number + 1) * len(files) // (self.plan.kills + 2)
            wait(lambda enough=enough: len(self.system.delivered) >= enough)  # type: ignore[misc]
            victim = self.random.choice(MAIN_PATH)
            self.kill(self.system.services[victim].process)
        for sender in senders:
            sender.join()
            self.took(sender.sent)
        self.outcome.claim(
            "C-STORE: acknowledged in the end", len(files), len(files), _acknowledged(senders)
        )

    def kill(self, process: Process) -> None:
        process.kill()
        self.outcome.killed += 1

    def kill_gateway(self, senders: Collection[DimseSender]) -> None:
        """In the middle of an association, and start it again as its machine does."""
        part = sum(len(sender.sent.files) for sender in senders) // 4
        before = self.system.meter.messages("gateway")
        wait(
            lambda: (
                self.system.meter.messages("gateway") - before >= part
                or not any(sender.is_alive() for sender in senders)
            )
        )
        self.kill(self.system.gateway)
        self.system.gateway.start()

    def web(self) -> None:
        files = self.files("stow", 2 * _FEW)
        sent = stow(self.system, files)
        self.took(sent)
        self.outcome.claim(
            "STOW-RS over HTTP/2: acknowledged", len(files), len(files), len(sent.acknowledged)
        )

    def give_up(self) -> None:
        """A message that was tried as often as it may be: here once, for the plan's number would
        take hours. It goes to the dead letters, and round again from there.
        """
        system, files = self.system, self.files("given-up", 1)
        one = next(s for s in system.shape.subscriptions if s.function == "apply_rules")
        pusher = system.pushing.pushers[one.name]
        policy, before = pusher.policy, pusher.count.dead_letters
        pusher.policy = replace(policy, max_attempts=1)
        system.services[one.function].turns_away = 1
        self.took(stow(system, files))
        wait(lambda: pusher.count.dead_letters > before)
        pusher.policy = policy
        self.await_delivered(files)
        self.outcome.claim(
            "a dead letter goes round again and is delivered",
            1,
            1,
            sum(system.delivered.get(uid) is not None for uid in files),
        )

    def objects(self) -> None:
        """Objects in the landing bucket: told of, told of twice, not told of, and no DICOM."""
        from tests.data import build

        system, files = self.system, self.files("object", _FEW)
        bucket = system.storage.buckets[system.landing_bucket]
        *told, lost = files
        for uid in told:
            bucket.put(f"{self.name}/{uid}.dcm", files[uid])
        bucket.put(f"{self.name}/letter.txt", build.text_file())
        with _losing_notices(system):
            bucket.put(f"{self.name}/lost/{lost}.dcm", files[lost])
        self.took(Sent(files, set(files)))
        self.await_delivered(told)
        bucket.on_finalized(bucket.find(f"{self.name}/{told[0]}.dcm", {}).shown())

    def stored_by_others(self) -> None:
        """Instances in a DICOM store: told of, told of twice, deleted, and not told of."""
        system, files = self.system, self.files("stored", _FEW)
        _, store = system.source_store
        first, *told, lost = files
        for uid in told:
            store.put(files[uid])
        with _losing_notices(system):
            store.put(files[lost])
            path = store.put(files[first])
        stored = notices.instance_changed("StoreInstances", path)
        topic = next(one.topic for one in system.shape.dicom_stores if one.topic)
        system.pubsub.publish(topic, *stored)
        self.took(Sent(files, set(files)))
        self.await_delivered([first, *told])
        system.pubsub.publish(topic, *stored)
        system.pubsub.publish(topic, *notices.instance_changed("DeleteInstances", path))

    def rule_changes(self) -> None:
        """A rule sends MR elsewhere, and sources look for what notifications missed."""
        from tests.data import build

        name, _ = self.system.source_store
        place = self.system.shape.gateway["AXIOM_DICOM_STORE"].split("/")
        before, after = self.files("mr-before", _FEW, "mr"), self.files("mr-after", _FEW, "mr")
        self.took(stow(self.system, before))
        self.await_delivered(before)
        rule = {"name": "mr", "conditions": ['Modality == "MR"'], "destinations": [ARCHIVE]}
        polled = {"poll_interval": 1, "settle_s": 0}
        bucket = {"type": "bucket", "bucket": self.system.landing_bucket, **polled}
        missed = {
            "name": "store",
            "type": "google_healthcare",
            "project_id": place[1],
            "location": place[3],
            "dataset_id": place[5],
            "dicom_store_id": name,
            "base_url": f"{self.system.delivered.url}/v1",
            "poll_interval": 1,
            "query_params": {"StudyInstanceUID": build.uid(f"{self.name}-stored")},
        }
        self.configure(
            [{"name": "rehearsed", "rules": [rule]}],
            {"name": "landing", "prefix": f"{self.name}/lost/", **bucket},
            missed,
        )
        sent = stow(self.system, after)
        self.took(sent)
        _, archive = self.system.source_store
        wait(lambda: all(archive.get(uid) for uid in after), fails=False)
        self.outcome.claim(
            "a rule sends elsewhere what comes after it",
            len(after),
            len(after),
            sum(archive.get(uid) is not None for uid in after)
            - sum(archive.get(uid) is not None for uid in before),
        )

    # ---- what should not come in

    def lie(self) -> tuple[int, int]:
        """Call each function as nobody, with a key of our own, and as somebody else; how often, and
        how often that was refused as it should be. Were one of them read, it would be in the
        exception log, beside the poisoned ones.
        """
        system, forger = self.system, SigningKey("rehearsal")
        email = system.shape.subscriptions[0].caller
        functions = [name for name in system.services if name not in FOR_PEOPLE]
        self.tell(f"calling {len(functions)} functions without a good token")
        system.start(functions)
        body = b'{"message": {"data": "bm8gbWVzc2FnZSBvZiBvdXJz", "messageId": "1"}}'
        statuses = []
        for name in functions:
            audience = system.shape.functions[name]["AXIOM_AUDIENCE"]
            for token, wanted in (
                ("", 401),
                (forger.token(audience, email), 401),
                (system.signer.token(audience, "somebody@example.org"), 403),
            ):
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                statuses.append(system.services[name].post(body, headers, 60.0) == wanted)
        return len(statuses), sum(statuses)

    def poison(self) -> int:
        """A message of nobody's in each topic that is pushed; how many."""
        topics = sorted({one.topic for one in self.system.shape.subscriptions})
        self.tell(f"poisoning {len(topics)} topics")
        for topic in topics:
            words = f"no message of ours: {self.name} {topic}".encode()
            self.system.pubsub.publish(topic, words, {})
        return len(topics)

    def logged(self) -> Counter[str]:
        """Entries of the exception log by their codes."""
        return Counter(entry["code"] for entry in self.system.listed("/api/v1/exceptions"))

    # ---- what became of it

    def settle(self, poisoned: int) -> None:
        """Wait until nothing is under way; what never comes is for `reconcile` to tell."""
        self._noted = self._in_exception_log()

        def is_settled() -> bool:
            recorded = (self.logged() - self.before)[_MALFORMED]
            is_done = recorded >= poisoned and not self._missing()
            return is_done and not self.system.pushing.waiting

        wait(is_settled, fails=False, every_s=0.3)

    def _missing(self) -> set[str]:
        missing = {uid for uid in self.sent.acknowledged if self._delivered(uid) is None}
        if missing:
            self._noted = self._in_exception_log()
        return missing - self._noted

    def _in_exception_log(self) -> set[str]:
        return {one["sop_instance_uid"] for one in self.system.listed("/api/v1/exceptions")}

    def _delivered(self, uid: str) -> bytes | None:
        _, archive = self.system.source_store
        return self.system.delivered.get(uid) or archive.get(uid)

    def reconcile(self) -> None:
        """What was acknowledged against what is there."""
        outcome, lost = self.outcome, sorted(self._missing())
        outcome.lost = lost
        number = len(self.sent.acknowledged)
        outcome.claim(
            "acknowledged Instances delivered or in the exception log",
            number,
            number,
            number - len(lost),
        )
        delivered = {uid: self._delivered(uid) for uid in self.sent.acknowledged}
        altered = sum(
            data is not None and not _has_same_pixels(data, self.sent.files[uid])
            for uid, data in delivered.items()
        )
        outcome.claim("delivered with other pixels", number, 0, altered)
        received = self.system.listed("/api/v1/instances")
        told = Counter(
            one["sop_instance_uid"] for one in received if one["source"]["type"] != "dimse"
        )
        twice = [uid for uid in self.sent.acknowledged if told[uid] > 1]
        outcome.claim(
            "taken in twice, for a second notification or our own write", 2 + _FEW, 0, len(twice)
        )


@contextmanager
def timers(system: System) -> Iterator[None]:
    """Have every timer of the plan come, more often than it would."""
    ended = threading.Event()

    def tick(function: str) -> None:
        while not ended.wait(_TIMERS_EVERY_S):
            system.tick(function)

    threads = [
        threading.Thread(target=tick, args=(one.function,), daemon=True)
        for one in system.shape.timers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def _losing_notices(system: System) -> Iterator[None]:
    system.loses_notices = True
    try:
        yield
    finally:
        system.loses_notices = False


def _acknowledged(senders: Collection[DimseSender]) -> int:
    return sum(len(sender.sent.acknowledged) for sender in senders)


def _has_same_pixels(delivered: bytes, sent: bytes) -> bool:
    """dcmtk writes Sequences anew, so that the bytes before Pixel Data are its own."""
    return bool(_pixels(delivered) == _pixels(sent))


def _pixels(part10: bytes) -> Any:
    import pydicom

    return pydicom.dcmread(BytesIO(part10)).PixelData
