"""P-DATA-TF PDUs however they are cut: the same messages come out, or a ProtocolError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp_gateway.message_reader import AbortReason, MessageReader, ProtocolError, Stopped
from tests.gateway import COMMAND, DATA, LAST, p_data, pdu, pdv


class Recorder:
    """A MessageHandler that keeps what it gets; commands that start with D have a data set."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes, bytes]] = []
        self._current = (0, b"")
        self._data = b""

    def command(self, context_id: int, command: bytes) -> bool:
        self._current, self._data = (context_id, command), b""
        return command.startswith(b"D")

    def data(self, fragments: list[memoryview]) -> None:
        self._data += b"".join(fragments)

    def end(self) -> None:
        self.messages.append((*self._current, self._data))


def feed(stream: bytes, sizes: list[int] | None = None) -> tuple[Recorder, MessageReader, bytes]:
    """Feed in pieces of `sizes` bytes, over and over; returns the untaken rest as well."""
    recorder = Recorder()
    reader = MessageReader(recorder)
    left, step = b"", 0
    sizes = sizes or [len(stream) or 1]
    while stream:
        size = sizes[step % len(sizes)]
        left, stream, step = left + stream[:size], stream[size:], step + 1
        view, position = memoryview(left), 0
        while True:
            position, stopped = reader.feed(view, position, len(view))
            if stopped is Stopped.NEEDS_MORE:
                break
            if stopped is Stopped.OTHER_PDU:
                return recorder, reader, bytes(view[position:]) + stream
        left = bytes(view[position:])
    return recorder, reader, left


MESSAGE = p_data(pdv(1, COMMAND | LAST, b"Dataset")) + p_data(pdv(1, DATA | LAST, b"x" * 300))


def test_a_message_is_a_command_and_its_data_set() -> None:
    recorder, reader, left = feed(MESSAGE)
    assert recorder.messages == [(1, b"Dataset", b"x" * 300)]
    assert reader.is_idle
    assert left == b""


fragments = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


@given(
    st.lists(st.tuples(st.integers(0, 127), fragments, st.none() | fragments), max_size=4),
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
)
def test_cuts_into_fragments_pdus_and_reads_do_not_matter(
    sent: list[tuple[int, list[bytes], list[bytes] | None]],
    pdvs_per_pdu: list[int],
    reads: list[int],
) -> None:
    """Several PDVs in one PDU, PDUs across reads, empty fragments: PS3.8 Annex E allows it all."""
    items: list[bytes] = []
    expected = []
    for number, command, data_set in sent:
        context_id = 2 * number + 1
        command = [(b"D" if data_set is not None else b"E") + command[0], *command[1:]]
        for part, kind in ((command, COMMAND), (data_set or [], DATA)):
            for i, fragment in enumerate(part):
                last = LAST if i == len(part) - 1 else 0
                # The other six bits of the Message Control Header are not to be looked at.
                items.append(pdv(context_id, kind | last | 0xF0, fragment))
        expected.append((context_id, b"".join(command), b"".join(data_set or [])))
    stream, step = b"", 0
    while items:
        take = pdvs_per_pdu[step % len(pdvs_per_pdu)]
        stream += p_data(*items[:take])
        items, step = items[take:], step + 1
    recorder, reader, left = feed(stream, reads)
    assert recorder.messages == expected
    assert reader.is_idle
    assert left == b""


@given(st.binary(max_size=400), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_any_bytes_are_taken_left_or_a_protocol_error(noise: bytes, reads: list[int]) -> None:
    try:
        feed(p_data(pdv(1, COMMAND | LAST, b"D")) + noise, reads)
    except ProtocolError:
        return


def test_another_pdu_is_left_alone() -> None:
    release = pdu(5, b"\0\0\0\0")
    recorder, _, left = feed(MESSAGE + release, [7])
    assert len(recorder.messages) == 1
    assert left == release


def test_a_claimed_length_is_only_a_counter() -> None:
    """4 GB claimed, a few bytes sent: nothing is set aside for the rest."""
    huge = b"\x04\0\xff\xff\xff\xff" + b"\xff\xff\xff\xfb" + bytes([1, DATA]) + b"x" * 10
    recorder, reader, left = feed(p_data(pdv(1, COMMAND | LAST, b"D")) + huge)
    assert recorder.messages == []
    assert not reader.is_idle
    assert left == b""


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x04\0\0\0\0\0", AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (b"\x04\0\0\0\0\x05\0\0\0\0\0", AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (p_data(b"\0\0\0\x01\x01\x03"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (p_data(b"\0\0\0\x64\x01\x03short"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (
            p_data(pdv(1, COMMAND | LAST, b"E") + b"\0\0\0"),
            AbortReason.INVALID_PDU_PARAMETER_VALUE,
        ),
        (p_data(pdv(1, DATA | LAST, b"x")), AbortReason.UNEXPECTED_PDU_PARAMETER),
        (
            p_data(pdv(1, COMMAND, b"D"), pdv(1, DATA, b"x")),
            AbortReason.UNEXPECTED_PDU_PARAMETER,
        ),
        (
            p_data(pdv(1, COMMAND | LAST, b"D"), pdv(1, COMMAND, b"D")),
            AbortReason.UNEXPECTED_PDU_PARAMETER,
        ),
        (
            p_data(pdv(1, COMMAND | LAST, b"D"), pdv(3, DATA, b"x")),
            AbortReason.UNEXPECTED_PDU_PARAMETER,
        ),
        (
            p_data(pdv(1, COMMAND, b"D" * 20_000)),
            AbortReason.INVALID_PDU_PARAMETER_VALUE,
        ),
    ],
    ids=[
        "no PDV",
        "less than a PDV header",
        "PDV shorter than its own header",
        "PDV longer than its PDU",
        "PDU ends within a PDV header",
        "data set without a command",
        "data set before the command ends",
        "command within a data set",
        "another context within a message",
        "endless command",
    ],
)
def test_what_breaks_the_protocol_has_a_reason_for_the_abort(
    stream: bytes, reason: AbortReason
) -> None:
    with pytest.raises(ProtocolError) as caught:
        feed(stream)
    assert caught.value.reason is reason
