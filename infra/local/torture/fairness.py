"""How much of its speed an honest sender keeps beside a hostile one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.local.torture.instances import Instance
from infra.local.torture.ledger import Ledger
from infra.local.torture.senders import by_association
from infra.local.torture.system import System

# The claim.
LEAST_RATIO = 0.5

_ROOT = Path(__file__).resolve().parents[3]
ROUNDS = 3
_MORE_ROUNDS = 4
_BATCH = 60
# The hostile sender has all its associations by then.
_ATTACK_BEGUN_S = 3.0
# A sender that gets nothing through in a round gives up.
_ATTEMPTS = 20
_ATTEMPT_PAUSE_S = 0.25


def measure(
    system: System, ledger: Ledger, make: Callable[[], Instance], rounds: int = ROUNDS
) -> float:
    """Its speed under attack as a share of its speed without, by rounds that take turns, so that
    what else the machine does falls on both; by up to four times as many rounds while the share is
    too small, for the machine may have done much else.
    """
    quiet_s = attacked_s = 0.0
    for number in range(_MORE_ROUNDS * rounds):
        if number >= rounds and quiet_s >= LEAST_RATIO * attacked_s:
            break
        quiet_s += _send(system, ledger, [make() for _ in range(_BATCH)])
        with _attack(system):
            time.sleep(_ATTACK_BEGUN_S)
            attacked_s += _send(system, ledger, [make() for _ in range(_BATCH)])
    return quiet_s / attacked_s


def _send(system: System, ledger: Ledger, batch: Sequence[Instance]) -> float:
    """Seconds until all of the batch is acknowledged, or the sender gives up."""
    began_s = time.monotonic()
    left = list(batch)
    for _ in range(_ATTEMPTS):
        told = set(by_association(system, left))
        ledger.acknowledge(i for i in left if i.sop_instance_uid in told)
        left = [i for i in left if i.sop_instance_uid not in told]
        if not left:
            return time.monotonic() - began_s
        time.sleep(_ATTEMPT_PAUSE_S)
    return float("inf")


@contextmanager
def _attack(system: System) -> Iterator[None]:
    ports = [str(system.dimse_port), str(system.http_port)]
    attacker = subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-m", "infra.local.torture.hostile", system.host, *ports],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        attacker.kill()
        attacker.wait()
