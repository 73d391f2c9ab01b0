"""Delivery by STOW-RS: to Orthanc, and to servers that answer anything at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.destinations import authorization, stow_answer
from shared.adapters.destinations.authorization import Authorization
from shared.adapters.destinations.dicomweb import DicomwebDestination
from shared.adapters.destinations.http_peer import retry_after_s
from shared.adapters.destinations.multipart import MultipartBody
from shared.errors import (
    AxiomError,
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
    SecretMissingError,
    TransientError,
)
from tests.data import build
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.scripted_http import Answer, Request, Respond, ScriptedHttp

if TYPE_CHECKING:
    from tests.peers import OrthancPeer, StartOrthanc

pytest_plugins = ("tests.peers",)

UID = build.uid("ct-1")
DICOM_JSON = {"Content-Type": "application/dicom+json"}

Make = Callable[..., DicomwebDestination]


@pytest.fixture
def destination() -> Iterator[Make]:
    """Make destinations that are closed when the test ends."""
    made: list[DicomwebDestination] = []

    def make(
        base_url: str, sign_in: Authorization | None = None, *, timeout_s: float = 3.0
    ) -> DicomwebDestination:
        made.append(
            DicomwebDestination(
                "archive",
                base_url=base_url,
                authorization=sign_in or authorization.none(),
                timeout_s=timeout_s,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def module(
    *, stored: str | None = None, warning: int | None = None, **failed: Any
) -> dict[str, Any]:
    """A Store Instances Response Module as DICOM JSON."""
    answer: dict[str, Any] = {"00081190": {"vr": "UR", "Value": ["http://server/studies/1"]}}
    if stored:
        item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [stored]}}
        if warning is not None:
            item["00081196"] = {"vr": "US", "Value": [warning]}
        answer["00081199"] = {"vr": "SQ", "Value": [item]}
    if failed:
        item = {"00081155": {"vr": "UI", "Value": [failed["uid"]]}}
        if "reason" in failed:
            item["00081197"] = {"vr": "US", "Value": [failed["reason"]]}
        if "detail" in failed:
            item["00090097"] = {"vr": "LO", "Value": [failed["detail"]]}
        answer["00081198"] = {"vr": "SQ", "Value": [item]}
    return answer


def answers(
    status: int, body: Mapping[str, Any] | bytes = b"", headers: Mapping[str, str] = DICOM_JSON
) -> Respond:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request: Answer(status, data, headers)


def parts_of(request: Request) -> list[bytes]:
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    pieces = request.body.split(b"--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    bodies = []
    for piece in pieces[1:-1]:
        header, _, body = piece.partition(b"\r\n\r\n")
        assert header == b"\r\nContent-Type: application/dicom"
        bodies.append(body.removesuffix(b"\r\n"))
    return bodies


# ---- Orthanc --------------------------------------------------------------------------------


@pytest.mark.peer("orthanc")
def test_orthanc_gets_the_edited_header_and_the_received_pixels(
    orthanc: OrthancPeer, destination: Make, tmp_path: Path
) -> None:
    delivery = destination(orthanc.dicomweb_url)
    received, edited = build.ct(128, 128), build.ct(128, 128, patient_id="SOMEBODY-ELSE")
    assert delivery.deliver(outgoing(tmp_path, received, edited)) == "200"
    assert orthanc.file(UID) == edited
    assert delivery.check() == "QIDO-RS 200"


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "JPEG2000.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"]
)
def test_orthanc_gets_any_transfer_syntax_as_it_is(
    orthanc: OrthancPeer, destination: Make, tmp_path: Path, name: str
) -> None:
    file = build.pydicom_file(name)
    instance = outgoing(tmp_path, file)
    assert destination(orthanc.dicomweb_url).deliver(instance).startswith("200")
    assert orthanc.file(instance.sop_instance_uid) == file


@pytest.mark.peer("orthanc")
def test_orthanc_wants_to_know_who_asks(
    start_orthanc: StartOrthanc, destination: Make, tmp_path: Path
) -> None:
    peer = start_orthanc(AuthenticationEnabled=True, RegisteredUsers={"axiom": "s3cret"})
    signed_in = authorization.basic("axiom", lambda: "s3cret")
    assert (
        destination(peer.dicomweb_url, signed_in).deliver(outgoing(tmp_path, build.ct())) == "200"
    )
    stranger = authorization.basic("axiom", lambda: "guess")
    for sign_in in (stranger, None):
        with pytest.raises(DestinationMisconfiguredError, match="401"):
            destination(peer.dicomweb_url, sign_in).deliver(outgoing(tmp_path, build.ct()))


# ---- the request ----------------------------------------------------------------------------


@pytest.mark.parametrize("has_descriptor", [True, False])
def test_the_request_is_one_part_with_a_length(
    destination: Make, tmp_path: Path, has_descriptor: bool
) -> None:
    edited = build.ct(300, 300, patient_id="OTHER")
    instance = outgoing(tmp_path, build.ct(300, 300), edited, has_descriptor=has_descriptor)
    with ScriptedHttp(answers(200, module(stored=UID))) as server:
        assert destination(server.url + "/dicom-web/").deliver(instance) == "200"
    (request,) = server.requests
    assert request.path == "/dicom-web/studies"
    assert request.headers["Content-Type"].startswith(
        'multipart/related; type="application/dicom"; boundary='
    )
    assert request.headers["Accept"] == "application/dicom+json"
    assert int(request.headers["Content-Length"]) == len(request.body)
    assert "Authorization" not in request.headers
    assert parts_of(request) == [edited]


def test_a_body_gives_all_its_bytes_each_time(tmp_path: Path) -> None:
    """Clients send a request again, and an exhausted body would be an empty success."""
    body = MultipartBody(outgoing(tmp_path, build.ct(600, 600)).part10_parts())
    first, second = b"".join(body), b"".join(body)
    assert first == second
    assert len(body) == len(first)


def test_connections_are_kept(destination: Make, tmp_path: Path) -> None:
    with ScriptedHttp(answers(200, module(stored=UID))) as server:
        delivery = destination(server.url)
        for _ in range(5):
            delivery.deliver(outgoing(tmp_path, build.ct()))
        assert len(server.connections) == 1


def test_threads_share_a_destination(destination: Make, tmp_path: Path) -> None:
    def respond(request: Request) -> Answer:
        (part,) = parts_of(request)
        uid = next(u for u in map(build.uid, map(str, range(4))) if u.encode() in part)
        return Answer(200, json.dumps(module(stored=uid)).encode(), DICOM_JSON)

    done: list[str] = []
    with ScriptedHttp(respond) as server:
        delivery = destination(server.url)

        def deliver(number: int) -> None:
            folder = tmp_path / str(number)
            folder.mkdir()
            instance = outgoing(folder, build.ct(instance=str(number)))
            done.extend(delivery.deliver(instance) for _ in range(5))

        threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == ["200"] * 20


# ---- signing in -----------------------------------------------------------------------------


def test_a_bearer_token_is_sent_and_never_shown(destination: Make, tmp_path: Path) -> None:
    with ScriptedHttp(answers(403)) as server:
        with pytest.raises(DestinationMisconfiguredError) as caught:
            destination(server.url, authorization.bearer(lambda: "t0ken\n")).deliver(
                outgoing(tmp_path, build.ct())
            )
        assert server.requests[0].headers["Authorization"] == "Bearer t0ken"
    assert "t0ken" not in repr(caught.value)


def test_a_renewed_secret_is_read_after_a_401(destination: Make, tmp_path: Path) -> None:
    """Whoever rotates a token must not find the next minute's Instances in the exception log."""
    tokens = ["old"]

    def respond(request: Request) -> Answer:
        if request.headers["Authorization"] != f"Bearer {tokens[-1]}":
            return Answer(401)
        assert parts_of(request) == [build.ct()]
        return Answer(200, json.dumps(module(stored=UID)).encode(), DICOM_JSON)

    with ScriptedHttp(respond) as server:
        delivery = destination(server.url, authorization.bearer(lambda: tokens[-1]))
        assert delivery.deliver(outgoing(tmp_path, build.ct())) == "200"
        tokens.append("new")
        assert delivery.deliver(outgoing(tmp_path, build.ct())) == "200"
        assert len(server.requests) == 3


def test_a_missing_secret_is_a_wrong_configuration(destination: Make, tmp_path: Path) -> None:
    def missing() -> str:
        raise SecretMissingError("pacs-token")

    with (
        ScriptedHttp(answers(200)) as server,
        pytest.raises(DestinationMisconfiguredError, match="secret pacs-token is missing"),
    ):
        destination(server.url, authorization.bearer(missing)).check()
    assert server.requests == []


@pytest.mark.parametrize("token", ["two\nlines", "t\u00f6ken"])
def test_a_token_that_is_no_token_is_not_sent(destination: Make, token: str) -> None:
    with (
        ScriptedHttp(answers(200)) as server,
        pytest.raises(DestinationMisconfiguredError, match="HTTP header") as caught,
    ):
        destination(server.url, authorization.bearer(lambda: token)).check()
    assert token not in repr(caught.value)


# ---- redirects ------------------------------------------------------------------------------


def test_a_redirect_within_the_server_is_followed(destination: Make, tmp_path: Path) -> None:
    def respond(request: Request) -> Answer:
        if request.path == "/studies":
            return Answer(308, headers={"Location": "/v2/studies"})
        assert parts_of(request) == [build.ct()]
        return Answer(200, json.dumps(module(stored=UID)).encode(), DICOM_JSON)

    with ScriptedHttp(respond) as server:
        assert destination(server.url).deliver(outgoing(tmp_path, build.ct())) == "200"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_not_followed(
    destination: Make, tmp_path: Path, status: int
) -> None:
    """It would hand the Instance, and perhaps the secret, to somebody nobody configured."""
    with ScriptedHttp(answers(200, module(stored=UID))) as stranger:
        elsewhere = {"Location": stranger.url + "/studies"}
        with (
            ScriptedHttp(answers(status, headers=elsewhere)) as server,
            pytest.raises(DestinationMisconfiguredError, match="redirects"),
        ):
            destination(server.url).deliver(outgoing(tmp_path, build.ct()))
        assert stranger.requests == []


# ---- the answer -----------------------------------------------------------------------------


def test_a_warning_is_success_and_is_mentioned(destination: Make, tmp_path: Path) -> None:
    with ScriptedHttp(answers(202, module(stored=UID, warning=0xB000))) as server:
        answer = destination(server.url).deliver(outgoing(tmp_path, build.ct()))
    assert answer == "202: Coercion of Data Elements, B000H"


def test_an_xml_answer_is_understood(destination: Make, tmp_path: Path) -> None:
    xml = f"""<?xml version="1.0" encoding="UTF-8"?>
    <NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
      <DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">
        <DicomAttribute tag="00081155" vr="UI"><Value number="1">{UID}</Value></DicomAttribute>
      </Item></DicomAttribute>
    </NativeDicomModel>"""
    kind = {"Content-Type": "application/dicom+xml"}
    with ScriptedHttp(answers(200, xml.encode(), kind)) as server:
        assert destination(server.url).deliver(outgoing(tmp_path, build.ct())) == "200"


def test_a_bare_200_is_believed(destination: Make, tmp_path: Path) -> None:
    with ScriptedHttp(answers(200)) as server:
        assert destination(server.url).deliver(outgoing(tmp_path, build.ct())) == "200"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (answers(429, headers={"Retry-After": "7"}), DestinationUnavailableError, "429"),
        (answers(503), DestinationUnavailableError, "503"),
        (answers(500, b"<html>"), DestinationUnavailableError, "500"),
        (answers(408), DestinationUnavailableError, "408"),
        (answers(507), DestinationUnavailableError, "507"),
        (answers(400, {"message": "bad UID"}), DestinationRefusedError, "400, bad UID"),
        (answers(413), DestinationRefusedError, "413"),
        (answers(415), DestinationRefusedError, "415"),
        (answers(404), DestinationMisconfiguredError, "404"),
        (answers(401), DestinationMisconfiguredError, "401"),
        (
            answers(409, module(uid=UID, reason=0xA900)),
            DestinationRefusedError,
            "does not match SOP Class: HTTP 409, A900H",
        ),
        (answers(409, module(uid=UID, reason=0xA700)), DestinationUnavailableError, "A700H"),
        (answers(409, module(uid=UID, reason=0xC000)), DestinationRefusedError, "C000H"),
        (answers(409, module(uid=UID)), DestinationRefusedError, "not stored"),
        (answers(200, module(uid=UID, reason=0xC000)), DestinationRefusedError, "C000H"),
        (answers(202, module(uid="1.2", reason=0x0122)), DestinationRefusedError, "0122H"),
        (answers(409, module(uid=UID, reason=0)), DestinationRefusedError, "0000H"),
        (answers(200, module(stored="1.2.3")), DestinationRefusedError, "not name"),
        (answers(200, module()), DestinationRefusedError, "not name"),
        (answers(202), DestinationRefusedError, "not name"),
        (answers(204), DestinationRefusedError, "204"),
        (
            answers(200, b"<!DOCTYPE html><html>", {"Content-Type": "text/html; charset=utf-8"}),
            DestinationMisconfiguredError,
            "text/html",
        ),
        (answers(200, b"<html></html>", {}), DestinationMisconfiguredError, "not as a DICOMweb"),
        (answers(200, b"OK", {}), DestinationMisconfiguredError, "not as a DICOMweb"),
        (answers(200, b"{" * 4000), DestinationMisconfiguredError, "not as a DICOMweb"),
        (lambda request: Answer(None), DestinationUnavailableError, "connection"),
        (
            answers(200, b"{", {"Content-Length": "1000", "Connection": "close"}),
            DestinationUnavailableError,
            "answer|connection",
        ),
    ],
)
def test_what_is_no_success(
    destination: Make, tmp_path: Path, answer: Respond, error: type[AxiomError], words: str
) -> None:
    with ScriptedHttp(answer) as server, pytest.raises(error, match=words):
        destination(server.url, timeout_s=1).deliver(outgoing(tmp_path, build.ct()))


def test_retry_after_is_handed_on(destination: Make, tmp_path: Path) -> None:
    with (
        ScriptedHttp(answers(503, headers={"Retry-After": "120"})) as server,
        pytest.raises(TransientError) as caught,
    ):
        destination(server.url).deliver(outgoing(tmp_path, build.ct()))
    assert caught.value.retry_after_s == 120


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("999999999", 3600),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s({"Retry-After": text}, now) == seconds


def test_an_endless_answer_is_not_read_to_its_end(destination: Make, tmp_path: Path) -> None:
    body = b"[" + b" " * (8 << 20)
    with (
        ScriptedHttp(answers(200, body)) as server,
        pytest.raises(DestinationMisconfiguredError, match="not as a DICOMweb"),
    ):
        destination(server.url).deliver(outgoing(tmp_path, build.ct()))


@given(st.binary(max_size=200) | st.text(alphabet='<>{}[]"/:,0123456789abcVue \n', max_size=200))
def test_whatever_a_server_answers_can_be_read(body: bytes | str) -> None:
    stow_answer.parse(body if isinstance(body, bytes) else body.encode())


@pytest.mark.parametrize("sequence", ["00081198", "0008119A"])
def test_what_a_server_says_of_an_instance_is_kept(
    destination: Make, tmp_path: Path, sequence: str
) -> None:
    """Another Axiom Flow says it in Error Comment; of what it could not read, among the others."""
    item = {
        "00081155": {"vr": "UI", "Value": [UID]},
        "00081197": {"vr": "US", "Value": [0xC000]},
        "00000902": {"vr": "LO", "Value": ["fragments-too-few: 1 for 2"]},
    }
    body = {sequence: {"vr": "SQ", "Value": [item]}}
    with (
        ScriptedHttp(answers(400, body)) as server,
        pytest.raises(DestinationRefusedError, match="fragments-too-few: 1 for 2"),
    ):
        destination(server.url).deliver(outgoing(tmp_path, build.ct()))


# ---- duplicates -----------------------------------------------------------------------------


def holds(stored: bytes | None, conflict: Answer) -> Respond:
    """A server that refuses a duplicate and shows what it has, or does not."""

    def respond(request: Request) -> Answer:
        if request.method == "POST":
            return conflict
        assert request.path == (
            f"/studies/{build.uid('study')}/series/{build.uid('ct-series')}/instances/{UID}"
        )
        if stored is None:
            return Answer(404)
        body = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + stored + b"\r\n--b--\r\n"
        return Answer(200, body, {"Content-Type": 'multipart/related; boundary="b"'})

    return respond


CONFLICTS = [
    Answer(409, json.dumps(module(uid=UID, reason=0x0111)).encode(), DICOM_JSON),
    Answer(
        409,
        json.dumps(module(uid=UID, reason=0x0110, detail="Instance already exists.")).encode(),
        DICOM_JSON,
    ),
    Answer(409, b'{"error": {"message": "instance already exists"}}'),
]
# "Conflict" it says in each case, and not with what.
UNEXPLAINED = [Answer(409), Answer(409, b"Conflict")]


@pytest.mark.parametrize("conflict", [*CONFLICTS, *UNEXPLAINED])
def test_equal_bytes_that_are_there_already_are_success(
    destination: Make, tmp_path: Path, conflict: Answer
) -> None:
    """A Delivery that was cut off after the server stored it comes again."""
    edited = build.ct(200, 200, patient_id="OTHER")
    with ScriptedHttp(holds(edited, conflict)) as server:
        answer = destination(server.url).deliver(outgoing(tmp_path, build.ct(200, 200), edited))
    assert "stored already" in answer


@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.parametrize(
    "stored",
    [
        build.ct(200, 200, patient_id="THIRD"),
        build.ct(200, 200)[:-2],
        build.ct(200, 200) + b"\0\0",
        b"no DICOM",
        None,
    ],
)
def test_other_bytes_under_the_uid_are_a_conflict(
    destination: Make, tmp_path: Path, conflict: Answer, stored: bytes | None
) -> None:
    with (
        ScriptedHttp(holds(stored, conflict)) as server,
        pytest.raises(InstanceConflictError) as caught,
    ):
        destination(server.url).deliver(outgoing(tmp_path, build.ct(200, 200)))
    uid, stored_crc, sent_crc = caught.value.args
    assert uid == UID
    assert stored_crc != sent_crc


@pytest.mark.parametrize("conflict", UNEXPLAINED)
def test_an_unexplained_409_is_a_conflict_only_if_something_is_stored(
    destination: Make, tmp_path: Path, conflict: Answer
) -> None:
    other = build.ct(200, 200, patient_id="THIRD")
    for stored, error in ((other, InstanceConflictError), (None, DestinationRefusedError)):
        with ScriptedHttp(holds(stored, conflict)) as server, pytest.raises(error):
            destination(server.url).deliver(outgoing(tmp_path, build.ct(200, 200)))


# ---- the check ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answers(200, b"<html>", {"Content-Type": "text/html"}), DestinationMisconfiguredError),
        (answers(404), DestinationMisconfiguredError),
        (answers(503), DestinationUnavailableError),
    ],
)
def test_check_tells_what_is_no_dicomweb_server(
    destination: Make, answer: Respond, error: type[AxiomError]
) -> None:
    with ScriptedHttp(answer) as server, pytest.raises(error):
        destination(server.url).check()


def test_an_empty_server_is_there(destination: Make) -> None:
    with ScriptedHttp(answers(204)) as server:
        assert destination(server.url).check() == "QIDO-RS 204"
