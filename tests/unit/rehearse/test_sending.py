"""Which files dcmtk's storescu says were taken."""

from __future__ import annotations

from infra.local.rehearse.sending import acknowledged

SENT = """I: Association Accepted (Max Send PDV: 16372)
I: Sending file: /sent/1.dcm
I: Converting transfer syntax: Little Endian Explicit -> Little Endian Explicit
I: Sending Store Request (MsgID 1, CT)
XMIT: .
I: Received Store Response (Success)
I: Sending file: /sent/2.dcm
I: Sending Store Request (MsgID 2, CT)
XMIT: .
I: Received Store Response (Error: CannotUnderstand)
I: Sending file: /sent/3.dcm
I: Sending Store Request (MsgID 3, CT)
XMIT: .
E: Store Failed, file: /sent/3.dcm:
E: 0006:0317 Peer aborted Association (or never connected)
"""


def test_a_file_counts_when_its_own_answer_is_success() -> None:
    assert [path.name for path in acknowledged(SENT)] == ["1.dcm"]


def test_what_died_before_its_first_answer_took_nothing() -> None:
    assert acknowledged("I: Requesting Association\nF: Association Request Failed") == []
