"""The parsers, each as a function that any bytes may be given to.

A target returns, whatever it is given: the errors that a parser's docstring names are answers, any
other is a fault, and so is one of the claims that are asserted here.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from scp_gateway.association_request import put_right
from scp_gateway.dimse_messages import parse_command
from scp_gateway.message_reader import MessageReader, ProtocolError, Stopped
from shared.adapters.destinations import responses, stow_answer, upper_layer
from shared.adapters.destinations.stored_copy import compare
from shared.adapters.sources.archives import Archive
from shared.config.service import check
from shared.dicom import command_set
from shared.dicom.command_set import MalformedCommandSetError
from shared.dicom.commitment import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    CommitmentReport,
    CommitmentRequest,
    Failure,
    MalformedCommitmentError,
    Reference,
)
from shared.dicom.edit import HeaderEdit, apply_changes, revert_changes
from shared.dicom.header import Header, HeaderIncompleteError
from shared.dicom.validation import validate
from shared.errors import (
    InvalidConfigurationError,
    MalformedMessageError,
    PermanentError,
    SourceRefusedError,
)
from shared.messages import DeliveryRequested, InstanceReceived, decode
from shared.multipart import MultipartError, MultipartReader
from shared.ports import ObjectReader
from shared.rules import compile_rulesets, parse_ruleset
from shared.rules.dump import DumpError, read_dump
from shared.rules.sample import sample_header
from shared.rules.selftest import run_tests
from shared.web.documents_in import parse_yaml
from shared.web.problems import ProblemError
from tests.data import build
from tests.gateway import COMMAND, DATA, LAST, p_data, pdv
from tests.unit.dicom.builders import DEFLATED_LE, EXPLICIT_BE, IMPLICIT_LE, Builder, BytesReader
from tests.unit.rules.cases import KEY, facts

_RULES = Path(__file__).resolve().parents[2] / "docs" / "rules"
# As the endpoints bound what they read; larger input shows nothing that smaller does not.
MOST_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Target:
    """One parser, and some input that it takes, for a start."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]


# ---- DICOM ---------------------------------------------------------------------------------


def header(data: bytes) -> None:
    """Reading, validating, editing and reverting the Header of a Part 10 file."""
    reader = cast(ObjectReader, BytesReader(data))
    try:
        found = Header.parse(data, file_size=len(data))
        for keyword in ("SOPInstanceUID", "PatientName", "SpecificCharacterSet"):
            found.text(keyword)
        for _, element in found.walk():
            assert element.vr
        validate(found, reader)
    except (PermanentError, HeaderIncompleteError):
        return
    again = Header.parse(found.data, body_size=max(0, len(data) - found.body_offset))
    assert again.data == found.data
    edit = HeaderEdit(found)
    try:
        edit.set("PatientID", ["F"], by="fuzz")
        edit.delete("SeriesDescription", by="fuzz")
        edit.set("RequestAttributesSequence[0].ScheduledProcedureStepID", ["S"], by="fuzz")
    except (PermanentError, ValueError):
        return
    edited, changes = edit.header(), edit.changes()
    assert apply_changes(found, changes).data == edited.data
    assert revert_changes(edited, changes).data == found.data


def _files() -> Iterator[bytes]:
    yield build.ct(rows=2, columns=2)
    yield build.compressed()[:MOST_BYTES]
    for syntax in ("1.2.840.10008.1.2.1", IMPLICIT_LE, EXPLICIT_BE):
        builder = Builder(syntax)
        yield builder.file(
            builder.element(0x00080005, "CS", b"ISO_IR 100"),
            builder.element(0x00080018, "UI", b"1.2.3\0"),
            builder.element(0x0008103E, "LO", b"text"),
            builder.sequence(
                0x00400275,
                builder.item(builder.element(0x00400009, "SH", b"a "), undefined=True),
                undefined=True,
            ),
            builder.element(0x00310010, "LO", b"ACME"),
            builder.element(0x00311020, "UN", b"\1\2"),
            builder.element(0x7FE00010, "OW", b"\0\0"),
        )
    deflated = Builder(DEFLATED_LE)
    yield deflated.file(deflated.element(0x00100020, "LO", b"ID"))


def commitment(data: bytes) -> None:
    """The data sets of storage commitment."""
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        for kind in (CommitmentRequest, CommitmentReport):
            with suppress(MalformedCommitmentError):
                kind.parse(data, syntax)


def _commitments() -> Iterator[bytes]:
    one, other = Reference("1.2", "1.2.3"), Reference("1.2", "1.2.4")
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        yield CommitmentRequest("1.9", (one, other)).encode(syntax)
        yield CommitmentReport("1.9", (one,), (Failure(other, 0x0112),)).encode(syntax)


def archive(data: bytes) -> None:
    """A zip archive, and those within it: no more is unpacked than may be."""
    unpacked = 0
    try:
        with Archive(BytesIO(data), "fuzz", max_members=100, max_bytes=1 << 20) as found:
            for member in found.members():
                for piece in found.chunks(member):
                    unpacked += len(piece)
    except SourceRefusedError:
        pass
    assert unpacked <= 1 << 20


def _archives() -> Iterator[bytes]:
    inner = BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("1.dcm", b"x" * 50)
    for method in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    ):
        outer = BytesIO()
        with zipfile.ZipFile(outer, "w", method) as file:
            file.writestr("a/1.dcm", b"y" * 100)
            file.writestr("a/2.zip", inner.getvalue())
        yield outer.getvalue()


# ---- the network ---------------------------------------------------------------------------


class _Messages:
    """A MessageHandler that keeps what it is given."""

    def __init__(self) -> None:
        self.found: list[tuple[int, bytes, bytes]] = []
        self._command, self._data = (0, b""), b""

    def command(self, context_id: int, command: bytes) -> bool:
        self._command, self._data = (context_id, command), b""
        try:
            return parse_command(command).has_data_set
        except MalformedCommandSetError:
            return False

    def data(self, fragments: list[memoryview]) -> None:
        self._data += b"".join(fragments)

    def end(self) -> None:
        self.found.append((*self._command, self._data))


def pdu(data: bytes) -> None:
    """P-DATA-TF PDUs as the gateway reads them: however they are cut, the same messages."""
    size = 1 + data[0] % 16 if data else 1
    assert _messages(data[1:], max(1, len(data))) == _messages(data[1:], size)


def _messages(data: bytes, size: int) -> list[object]:
    handler = _Messages()
    reader = MessageReader(handler)
    left = b""
    try:
        for start in range(0, len(data), size):
            left += data[start : start + size]
            view, position, stopped = memoryview(left), 0, Stopped.MESSAGE_ENDED
            while stopped is Stopped.MESSAGE_ENDED:
                position, stopped = reader.feed(view, position, len(view))
            if stopped is Stopped.OTHER_PDU:
                return [*handler.found, stopped]
            left = bytes(view[position:])
    except ProtocolError as error:
        return [*handler.found, error.reason]
    return [*handler.found]


def _pdus() -> Iterator[bytes]:
    command = command_set.store_request(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    yield b"\7" + p_data(pdv(1, COMMAND | LAST, command)) + p_data(pdv(1, DATA | LAST, b"x" * 40))
    halves = pdv(3, COMMAND, command[:20]), pdv(3, COMMAND | LAST, command[20:])
    yield b"\1" + p_data(*halves) + p_data(pdv(3, DATA, b"x"), pdv(3, DATA | LAST, b""))
    yield (
        b"\3"
        + p_data(pdv(1, COMMAND | LAST, command_set.echo_request(2)))
        + b"\5\0\0\0\0\4"
        + bytes(4)
    )


def association(data: bytes) -> None:
    """What peers say to open an association, to us as SCP and as SCU, and what they answer."""
    request = put_right(data)
    assert len(request) <= len(data)
    assert put_right(request) == request
    for parse in (
        upper_layer.parse_associate_accept,
        upper_layer.parse_associate_reject,
        lambda body: list(upper_layer.pdvs(body)),
        upper_layer.abort_reason,
        lambda body: responses.parse_response(body, 1, 1),
        responses.event_report_answer,
    ):
        with suppress(upper_layer.ProtocolError):
            parse(data)


def _associations() -> Iterator[bytes]:
    context = upper_layer.Context("1.2.840.10008.1.1", "1.2.840.10008.1.2")
    request = upper_layer.associate_request("AXIOM", "PEER", [context], 16384)
    yield request
    yield request[6:]
    command = command_set.echo_request(1)
    yield command
    yield p_data(pdv(1, COMMAND | LAST, command))[6:]


# ---- HTTP ----------------------------------------------------------------------------------


def multipart(data: bytes) -> None:
    """A body that is multipart, or says so: however it comes, the same parts."""
    size = 1 + data[0] % 16 if data else 1
    assert _parts(data[1:], max(1, len(data))) == _parts(data[1:], size)
    compare(iter([data[1:]]), "multipart/related", [b"sent"])


def _parts(data: bytes, size: int) -> list[object]:
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        piece = data[position : position + min(count, size)]
        position += len(piece)
        return piece

    found: list[object] = []
    try:
        for part in MultipartReader(read, "b", max_parts=50):
            content = b"".join(map(bytes, part.chunks()))
            assert len(content) <= len(data)
            found.append((dict(part.headers), content))
    except MultipartError as error:
        found.append(str(error))
    return found


def _multiparts() -> Iterator[bytes]:
    fields = b"Content-Type: application/dicom\r\n\r\n"
    yield b"\3--b\r\n" + fields + b"one\r\n--b\r\n" + fields + b"two\r\n--b--\r\n"
    yield b"\1preamble\r\n--b \t\r\n\r\n\r\n--b--"
    yield b"\2--b\nContent-ID: <1>\n folded\n\nx\n--b-\n--b--\n"


def answer(data: bytes) -> None:
    """What a DICOMweb server answers to STOW-RS: reading it never fails."""
    found = stow_answer.parse(data)
    assert len(found.words) <= len(data) + 1000


def _answers() -> Iterator[bytes]:
    item = {"00081155": {"vr": "UI", "Value": ["1.2"]}, "00081197": {"vr": "US", "Value": [272]}}
    yield json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()
    yield json.dumps({"00081198": {"vr": "SQ", "Value": [item]}, "message": "no"}).encode()
    yield (
        b'<NativeDicomModel><DicomAttribute tag="00081199" vr="SQ"><Item number="1">'
        b'<DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2</Value></DicomAttribute>'
        b"</Item></DicomAttribute></NativeDicomModel>"
    )


# ---- documents -----------------------------------------------------------------------------


def rules(data: bytes) -> None:
    """A ruleset in YAML or JSON; one that is taken can be run."""
    document = _document(data)
    with suppress(InvalidConfigurationError):
        ruleset = parse_ruleset(cast(Any, document))
        program = compile_rulesets([ruleset], key=KEY)
        program.evaluate(sample_header({"Modality": "CT", "PatientID": "1"}), facts())
        run_tests(ruleset)


def configuration(data: bytes) -> None:
    """A whole configuration in YAML or JSON."""
    document = _document(data)
    if isinstance(document, Mapping):
        with suppress(InvalidConfigurationError):
            check(document)


def _document(data: bytes) -> object:
    try:
        return parse_yaml(data.decode())
    except (ProblemError, UnicodeDecodeError):
        return None


def _rule_files() -> Iterator[bytes]:
    for path in sorted(_RULES.glob("*.yaml")):
        yield path.read_bytes()


def _configurations() -> Iterator[bytes]:
    document = {
        "destinations": [
            {"name": "a", "type": "filesystem", "path": "a"},
            {"name": "p", "type": "dimse", "host": "h", "port": 104, "ae_title": "P"},
            {"name": "w", "type": "dicomweb", "base_url": "https://h/dicom-web"},
        ],
        "listeners": [
            {"name": "l", "port": 11112, "commitment_peers": {"A": {"host": "h", "port": 1}}}
        ],
        "rulesets": [
            {"name": "r", "rules": [{"name": "x", "conditions": ['Modality equals "CT"']}]}
        ],
        "settings": {"default_route": ["a"], "min_free_bytes": 0, "retention_s": 60},
    }
    yield json.dumps(document).encode()
    yield b"settings: {default_route: [a]}\ndestinations:\n- {name: a, type: filesystem, path: a}\n"


def dump(data: bytes) -> None:
    """The text of a dump of an Instance, or its JSON."""
    with suppress(DumpError, UnicodeDecodeError):
        read_dump(data.decode())


def _dumps() -> Iterator[bytes]:
    yield b"(0008,0060) CS [CT]  #   2, 1 Modality\n(0010,0010) PN [A^B] # 4, 1 PatientName\n"
    yield b"(0008,1140) SQ (Sequence with undefined length #=1) # u/l, 1\n  (fffe,e000) na (Item)\n"
    yield b'{"00080060": {"vr": "CS", "Value": ["CT"]}, "00100010": {"vr": "PN", "Value": [{}]}}'


def message(data: bytes) -> None:
    """A message of the queue, which a stranger may have put there."""
    with suppress(MalformedMessageError):
        decode(data, InstanceReceived)
    with suppress(MalformedMessageError):
        decode(data, DeliveryRequested)


def _queued() -> Iterator[bytes]:
    yield b'{"receipt":{"receipt_id":"r","trace_id":"t","received_at":"2026-11-21T10:00:00Z"}}'


TARGETS: Mapping[str, Target] = {
    "header": Target(header, _files),
    "commitment": Target(commitment, _commitments),
    "archive": Target(archive, _archives),
    "pdu": Target(pdu, _pdus),
    "association": Target(association, _associations),
    "multipart": Target(multipart, _multiparts),
    "answer": Target(answer, _answers),
    "rules": Target(rules, _rule_files),
    "configuration": Target(configuration, _configurations),
    "dump": Target(dump, _dumps),
    "message": Target(message, _queued),
}
