"""What is rehearsed: a CT is sent, a function dies on the way, a message is poisoned; lost: 0."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.rehearse import emulators
from infra.local.rehearse.system import AE_TITLE, System, running_system
from infra.local.terminal import CommandFailedError

# Those that a received Instance passes, and those that take what goes wrong.
FUNCTIONS = (
    "validate_instance",
    "apply_rules",
    "deliver_instance",
    "record_exception",
    "record_dead_letter",
)
VICTIM = "deliver_instance"
POISONED = "axiom-instance-received"

_SETTLED_WITHIN_S = 240.0
_CLOUD_RUN_KILLS_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it."""

    sent: int
    acknowledged: bool  # storescu had Success for every Instance
    delivered: int
    altered: int  # delivered, with other pixels than were sent
    killed: int
    poisoned: int
    exceptions: Mapping[str, int]  # entries of the exception log by code
    ended_s: Mapping[str, float]  # how long each process took to end
    seconds: float

    @property
    def lost(self) -> int:
        """Acknowledged, and not where it should be."""
        return self.sent - self.delivered if self.acknowledged else 0

    @property
    def late(self) -> list[str]:
        """Processes that Cloud Run would have killed."""
        return [name for name, s in self.ended_s.items() if s > _CLOUD_RUN_KILLS_AFTER_S]

    @property
    def holds(self) -> bool:
        """Whether all went as it should."""
        return (
            self.acknowledged
            and not (self.lost or self.altered or self.late)
            and self.exceptions == {"malformed-message": self.poisoned}
        )

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "sent": self.sent,
            "delivered": self.delivered,
            "lost": self.lost,
            "altered": self.altered,
            "functions_killed": self.killed,
            "messages_poisoned": self.poisoned,
            "exceptions": dict(self.exceptions),
            "slowest_end_s": round(max(self.ended_s.values(), default=0.0), 1),
            "seconds": round(self.seconds, 1),
        }


def rehearse(folder: Path, instances: int, tell: Callable[[str], None]) -> Outcome:
    """Raises: CommandFailedError where something that it needs is not installed or not ready."""
    _check_tools()
    sent = _write_instances(folder / "sent", instances)
    began_s = time.monotonic()
    with running_system(folder, FUNCTIONS, tell) as system:
        tell(f"storescu sends {instances} CT Instances")
        sender = _storescu(system, folder / "sent")
        _wait(lambda: len(system.store) >= max(1, instances // 4), "the first are delivered")
        tell(f"SIGKILL to {VICTIM}")
        system.functions[VICTIM].kill()
        system.publish(POISONED, base64.b64encode(b"no message of ours").decode())
        # Cloud Run starts another one at once, which takes its time.
        system.functions[VICTIM].start()
        acknowledged = sender.wait(_SETTLED_WITHIN_S) == 0
        tell("waiting until all is where it should be")
        _wait(lambda: len(system.store) >= instances, "all are delivered", fails=False)
        _wait(lambda: bool(system.documents("exceptions")), "the poisoned one", fails=False)
        exceptions = [str(entry["code"]) for entry in system.documents("exceptions")]
        delivered = {uid: system.store.get(uid) for uid in sent}
    return Outcome(
        sent=instances,
        acknowledged=acknowledged,
        delivered=sum(data is not None for data in delivered.values()),
        altered=sum(
            data is not None and not _has_same_pixels(data, sent[uid])
            for uid, data in delivered.items()
        ),
        killed=1,
        poisoned=1,
        exceptions={code: exceptions.count(code) for code in sorted(set(exceptions))},
        ended_s=system.ended_s,
        seconds=time.monotonic() - began_s,
    )


def _check_tools() -> None:
    if not emulators.are_installed():
        raise CommandFailedError(
            "Google's emulators are not installed",
            hint="Install gcloud with its components beta, pubsub-emulator and "
            "cloud-firestore-emulator, and Java.",
            code="not-installed",
        )
    if shutil.which("storescu") is None:
        raise CommandFailedError("dcmtk's storescu is not installed", code="not-installed")


def _write_instances(folder: Path, count: int) -> dict[str, bytes]:
    """Files to send; their bytes by SOP Instance UID."""
    from tests.data import build

    folder.mkdir(parents=True)
    sent = {}
    for number in range(count):
        name = f"rehearsed-{number}"
        sent[build.uid(name)] = build.ct(64, 64, instance=name)
        (folder / f"{number}.dcm").write_bytes(sent[build.uid(name)])
    return sent


def _storescu(system: System, folder: Path) -> subprocess.Popen[bytes]:
    words = ["storescu", "-aec", AE_TITLE, "+sd", "127.0.0.1", str(system.gateway.port)]
    return subprocess.Popen([*words, str(folder)])  # noqa: S603 (the words are ours)


def _has_same_pixels(delivered: bytes, sent: bytes) -> bool:
    """dcmtk writes Sequences anew, so that the bytes before Pixel Data are its own."""
    return bool(_pixels(delivered) == _pixels(sent))


def _pixels(part10: bytes) -> Any:
    import io

    import pydicom

    return pydicom.dcmread(io.BytesIO(part10)).PixelData


def _wait(claim: Callable[[], bool], what: str, *, fails: bool = True) -> None:
    deadline_s = time.monotonic() + _SETTLED_WITHIN_S
    while not claim():
        if time.monotonic() > deadline_s:
            if fails:
                raise CommandFailedError(f"it did not come so far that {what}", code="not-in-time")
            return
        time.sleep(0.2)
