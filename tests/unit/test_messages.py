"""Messages as bytes, read by many threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Threads that meet at the first use of a type, switching as often as they can.
MEET = """
import sys, threading
from datetime import UTC, datetime
sys.setswitchinterval(1e-6)
from shared.messages import DeliveryRequested, ReceivedFile, Receipt, Source, decode, encode
file = ReceivedFile("object", 1, 2, 3)
receipt = Receipt("r", "t", datetime.now(UTC), Source("dimse", "x"), file, *"12345", b"header")
data = encode(DeliveryRequested(receipt, "pacs"))
barrier = threading.Barrier(8)
def read():
    barrier.wait()
    assert decode(data, DeliveryRequested).receipt == receipt
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

# msgspec reads a type's annotations at its first use: only one that was used before goes without.
UNPREPARED = """
import msgspec
import shared.messages as messages
import shared.pipeline.plans as plans
from shared.dicom.changes import Change
class Control(msgspec.Struct):
    field: int
kinds = [*messages.M.__constraints__, messages.Receipt, messages.Source, messages.ReceivedFile]
kinds += [Change, plans.Plan, Control]
for kind in kinds:
    kind.__annotations__ = {}
    try:
        msgspec.convert({}, kind)
    except msgspec.ValidationError:
        continue
    except SystemError:
        print(kind.__name__)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_type_is_prepared_before_threads_can_meet_at_it() -> None:
    """msgspec prepares a type at its first use, and two threads that do so at once can crash the
    process: it was a delivery that died of SIGSEGV as it started.
    """
    assert run(UNPREPARED).stdout == "Control\n"


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_begin_together_read_the_same(attempt: int) -> None:
    ran = run(MEET)
    assert ran.returncode == 0, ran.stderr
