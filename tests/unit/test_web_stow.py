"""STOW-RS (PS3.18 10.5): what is stored, what is refused and what the sender is told."""

from __future__ import annotations

import json
import logging
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pydicom
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from shared.errors import OverloadedError, StorageUnavailableError
from tests.unit.web_fakes import (
    AUTHORIZED,
    STUDIES,
    FakeReception,
    client_over,
    fake_ports,
    part10,
    related,
)

RELATED = 'multipart/related; type="application/dicom"; boundary="B"'
DICOM = "application/dicom"
REFERENCED, FAILED, OTHER, RETRIEVE_URL = "00081199", "00081198", "0008119A", "00081190"


@pytest.fixture
def reception() -> FakeReception:
    return FakeReception()


@pytest.fixture
def client(tmp_path: Path, reception: FakeReception) -> FlaskClient:
    return client_over(fake_ports(tmp_path, reception))


def store(
    client: FlaskClient,
    body: bytes,
    content_type: str = RELATED,
    *,
    url: str = STUDIES,
    **headers: str,
) -> TestResponse:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(
        url, data=body, headers={**AUTHORIZED, "Content-Type": content_type, **fields}
    )


def reasons(response: TestResponse, sequence: str) -> list[int]:
    items: list[Any] = response.get_json(force=True)[sequence]["Value"]
    return [item["00081197"]["Value"][0] for item in items]


class TestStore:
    def test_stores_each_part_as_it_is(self, client: FlaskClient, reception: FakeReception) -> None:
        ct, mr = part10("CT_small.dcm"), part10("MR_small.dcm")
        response = store(client, related(ct, mr))
        assert response.status_code == 200
        assert reception.committed == [ct, mr]

    def test_stores_a_single_file(self, client: FlaskClient, reception: FakeReception) -> None:
        response = store(client, part10(), DICOM)
        assert response.status_code == 200
        assert reception.committed == [part10()]

    def test_answers_in_dicom_json_with_references(self, client: FlaskClient) -> None:
        response = store(client, related(part10()))
        assert response.content_type == "application/dicom+json"
        sent = pydicom.dcmread(BytesIO(part10()))
        answer = pydicom.Dataset.from_json(response.get_json(force=True))
        item = answer.ReferencedSOPSequence[0]
        assert item.ReferencedSOPClassUID == sent.SOPClassUID
        assert item.ReferencedSOPInstanceUID == sent.SOPInstanceUID
        assert "FailedSOPSequence" not in answer

    def test_promises_no_url_where_nothing_can_be_retrieved(self, client: FlaskClient) -> None:
        """Retrieve URL is Type 2: there, and empty."""
        answer = store(client, related(part10())).get_json(force=True)
        empty = {"vr": "UR"}
        assert answer[RETRIEVE_URL] == empty
        assert answer[REFERENCED]["Value"][0][RETRIEVE_URL] == empty

    def test_answers_in_the_native_model_if_asked(self, client: FlaskClient) -> None:
        response = store(client, related(part10(), b"text"), Accept="application/dicom+xml")
        assert response.content_type == "application/dicom+xml"
        root = ElementTree.fromstring(response.data)
        namespace = {"n": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
        assert root.tag == f"{{{namespace['n']}}}NativeDicomModel"
        uid = root.find(
            "n:DicomAttribute[@keyword='ReferencedSOPSequence']/n:Item[@number='1']"
            "/n:DicomAttribute[@tag='00081155'][@vr='UI']/n:Value[@number='1']",
            namespace,
        )
        assert uid is not None
        assert uid.text == pydicom.dcmread(BytesIO(part10())).SOPInstanceUID

    @pytest.mark.parametrize(
        ("accept", "status"),
        [
            ("*/*", 200),
            ("application/*", 200),
            ("application/json", 200),
            ("text/html, application/dicom+json;q=0.1", 200),
            ("application/dicom+json; charset=utf-8", 200),
            ("application/dicom+json;q=0, */*", 200),
            ("application/dicom+json;q=high", 406),
            ("text/html", 406),
            ("application/dicom+json;q=0", 406),
        ],
    )
    def test_negotiates_the_answer_before_it_stores(
        self, client: FlaskClient, reception: FakeReception, accept: str, status: int
    ) -> None:
        assert store(client, related(part10()), Accept=accept).status_code == status
        assert len(reception.committed) == (status == 200)

    @pytest.mark.parametrize(
        "content_type",
        [
            "multipart/related; type=application/dicom; boundary=B",
            'multipart/related; boundary=B; type="application/dicom"',
            "multipart/related; boundary=B",
            "Multipart/Related; Type=Application/DICOM; Boundary=B",
        ],
    )
    def test_takes_the_content_type_as_senders_write_it(
        self, client: FlaskClient, content_type: str
    ) -> None:
        assert store(client, related(part10()), content_type).status_code == 200

    def test_takes_a_chunked_body(self, client: FlaskClient, reception: FakeReception) -> None:
        response = client.post(
            STUDIES,
            input_stream=BytesIO(related(part10())),
            headers={**AUTHORIZED, "Content-Type": RELATED, "Transfer-Encoding": "chunked"},
        )
        assert response.status_code == 200
        assert reception.committed == [part10()]

    def test_names_the_caller_as_the_source(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        store(client, part10(), DICOM)
        source = reception.sources[0]
        assert (source.type, source.peer_address, source.principal) == (
            "stow",
            "127.0.0.1",
            "preset",
        )


class TestFailures:
    def test_one_bad_part_does_not_stop_the_others(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        response = store(client, related(b"not DICOM", part10(), b""))
        assert response.status_code == 202
        assert reasons(response, OTHER) == [0xC000, 0xC000]
        [first, _] = response.get_json(force=True)[OTHER]["Value"]
        words = 'Not a DICOM Part 10 file: no "DICM"'
        assert first["00000902"] == {"vr": "LO", "Value": [words]}
        assert len(response.get_json(force=True)[REFERENCED]["Value"]) == 1
        assert reception.committed == [part10()]
        assert response.headers["Warning"].startswith('299 axiom-flow "2 of 3 not stored')

    def test_a_request_of_which_nothing_is_stored_is_a_conflict(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        response = store(client, b"plain text", DICOM)
        assert response.status_code == 409
        assert reasons(response, OTHER) == [0xC000]
        assert len(reception.refused) == 1

    def test_a_part_of_another_type_fails_by_itself(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        body = related(b"{}", header="application/json")
        assert store(client, body).status_code == 409
        assert len(reception.refused) == 1

    def test_an_instance_of_another_study_than_the_path_says_fails(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        response = store(client, related(part10()), url=f"{STUDIES}/1.2.3")
        assert response.status_code == 409
        assert reasons(response, FAILED) == [0xA900]
        failed = response.get_json(force=True)[FAILED]["Value"][0]
        assert failed["00081155"]["Value"] == [pydicom.dcmread(BytesIO(part10())).SOPInstanceUID]
        assert not reception.committed

    def test_an_instance_of_the_study_of_the_path_is_stored(self, client: FlaskClient) -> None:
        study = pydicom.dcmread(BytesIO(part10())).StudyInstanceUID
        assert store(client, related(part10()), url=f"{STUDIES}/{study}").status_code == 200

    @pytest.mark.parametrize("study", ["..%2f..%2fetc", "1.2.3%0d%0aX:1", "abc", "1" * 65])
    def test_a_path_that_is_no_uid_is_refused(self, client: FlaskClient, study: str) -> None:
        response = store(client, related(part10()), url=f"{STUDIES}/{study}")
        assert response.status_code in (400, 404)

    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            ("text/plain", 415),
            ("", 415),
            ("multipart/form-data; boundary=B", 415),
            ('multipart/related; type="application/dicom+json"; boundary=B', 415),
            ("multipart/related; type=application/dicom", 400),
            ('multipart/related; boundary="a\r\nb"'.replace("\r\n", "\x7f"), 400),
        ],
    )
    def test_a_wrong_content_type_is_refused(
        self, client: FlaskClient, content_type: str, status: int
    ) -> None:
        assert store(client, related(part10()), content_type).status_code == status

    def test_a_body_that_breaks_off_leaves_nothing_and_is_no_success(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        body = related(part10(), part10("MR_small.dcm"))[:-3000]
        response = store(client, body)
        assert response.status_code == 400
        assert "1 Instances were stored" in response.get_json(force=True)["detail"]
        assert reception.committed == [part10()]
        assert reception.open_stagings == 0
        assert [error.code for error in reception.refused] == ["broken-off"]

    def test_a_single_file_shorter_than_announced_is_not_stored(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        """A server ends the body when the connection ends; the rest may have been pixels."""
        response = client.post(
            STUDIES,
            input_stream=BytesIO(part10()),
            headers={**AUTHORIZED, "Content-Type": DICOM},
            environ_overrides={"CONTENT_LENGTH": "1000000"},
        )
        assert response.status_code == 400
        assert not reception.committed
        assert [error.code for error in reception.refused] == ["broken-off"]

    def test_an_empty_body_is_refused(self, client: FlaskClient) -> None:
        assert store(client, b"", DICOM).status_code == 400
        assert store(client, b"").status_code == 400

    def test_an_instance_that_is_too_large_is_refused(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        reception.max_bytes = 1000
        response = store(client, related(part10()))
        assert response.status_code == 413
        assert reasons(response, OTHER) == [0xA700]
        assert len(reception.refused) == 1

    def test_a_claim_of_10_gb_is_refused_before_a_byte_is_read(
        self, tmp_path: Path, reception: FakeReception
    ) -> None:
        reception.max_bytes = 8 << 30
        client = client_over(fake_ports(tmp_path, reception))

        class Untouched(BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise AssertionError

        response = client.post(
            STUDIES,
            input_stream=Untouched(),
            headers={**AUTHORIZED, "Content-Type": DICOM},
            environ_overrides={"CONTENT_LENGTH": str(10 << 30)},
        )
        assert response.status_code == 413
        assert len(reception.refused) == 1

    def test_a_request_that_is_too_large_is_refused_announced_or_not(
        self, tmp_path: Path, reception: FakeReception
    ) -> None:
        reception.max_request_bytes = 60_000
        client = client_over(fake_ports(tmp_path, reception))
        body = related(part10(), part10())
        assert store(client, body).status_code == 413
        assert not reception.sources
        response = client.post(
            STUDIES,
            input_stream=BytesIO(body),
            headers={**AUTHORIZED, "Content-Type": RELATED, "Transfer-Encoding": "chunked"},
        )
        assert response.status_code == 413
        assert response.get_json(force=True)["code"] == "request-too-large"

    @pytest.mark.parametrize(
        ("error", "retry_after"),
        [(OverloadedError("the disk is full"), "30"), (StorageUnavailableError("locked"), "5")],
    )
    def test_a_system_that_cannot_store_now_asks_to_come_again(
        self,
        client: FlaskClient,
        reception: FakeReception,
        error: OverloadedError | StorageUnavailableError,
        retry_after: str,
    ) -> None:
        reception.begin_error = error
        response = store(client, related(part10()))
        assert response.status_code == 503
        assert response.headers["Retry-After"] == retry_after
        reception.begin_error, reception.commit_error = None, error
        assert store(client, part10(), DICOM).status_code == 503


class TestAbuse:
    def test_no_request_is_answered_with_a_bug(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        latin_1 = st.characters(codec="latin-1", exclude_categories=["Cc"])
        pieces = [b"--B", b"--B--", b"\r\n", b"\r\n\r\n", b"\n", b"DICM", bytes(128)]
        like_multipart = st.lists(st.sampled_from(pieces) | st.binary(max_size=9), max_size=12)

        @settings(deadline=None)
        @given(
            body=st.binary(max_size=300) | like_multipart.map(b"".join),
            content_type=st.sampled_from([RELATED, DICOM, "multipart/related; boundary=B"])
            | st.text(latin_1, max_size=40),
            accept=st.sampled_from(["", "*/*", "application/dicom+xml"])
            | st.text(latin_1, max_size=20),
        )
        def holds(body: bytes, content_type: str, accept: str) -> None:
            response = store(client, body, content_type, Accept=accept)
            assert response.status_code in (400, 406, 409, 413, 415)
            assert reception.open_stagings == 0

        holds()

    def test_a_uid_that_is_none_is_not_repeated(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        """A sender that mixes up Attributes may have put a name there."""
        dataset = pydicom.dcmread(BytesIO(part10()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.SOPInstanceUID = "Doe^John"
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=False)
            response = store(client, related(buffer.getvalue()), url=f"{STUDIES}/1.2.3")
        assert response.status_code == 409
        assert reasons(response, OTHER) == [0xA900]
        assert b"Doe" not in response.data

    def test_ten_thousand_empty_parts_cost_little(
        self, client: FlaskClient, reception: FakeReception
    ) -> None:
        response = store(client, related(*[b""] * 10_000))
        assert response.status_code == 409
        assert not reception.sources  # nothing was staged or recorded for them

    def test_more_parts_than_are_taken_end_the_request(self, client: FlaskClient) -> None:
        assert store(client, b"--B\r\n\r\n" * 20_002 + b"--B--").status_code == 413

    def test_names_that_parts_give_are_of_no_effect(
        self, reception: FakeReception, tmp_path: Path
    ) -> None:
        home = tmp_path / "up" / "to" / "home"
        home.mkdir(parents=True)
        client = client_over(fake_ports(home, reception))
        body = (
            b"--B\r\nContent-Type: application/dicom\r\nContent-Location: ../../evil.dcm\r\n"
            b'Content-Disposition: attachment; filename="../../evil.dcm\x00\r\n x"\r\n\r\n'
        )
        response = store(client, body + part10() + b"\r\n--B--")
        assert response.status_code == 200
        assert not list(tmp_path.rglob("evil*"))

    def test_no_patient_value_is_in_logs_or_answers(
        self,
        client: FlaskClient,
        reception: FakeReception,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The canary: a name that occurs nowhere else must not be seen outside of the store."""
        canary = "CANARY^YELLOW"
        dataset = pydicom.dcmread(BytesIO(part10()))
        dataset.PatientName = canary
        buffer = BytesIO()
        dataset.save_as(buffer)
        whole = buffer.getvalue()
        caplog.set_level(logging.DEBUG)
        answers = [
            store(client, related(whole)),
            store(client, whole, DICOM),
            store(client, related(whole), url=f"{STUDIES}/1.2.3"),
            store(client, related(whole)[:-200]),
            store(client, b"--B\r\n" + canary.encode() + b"\r\n\r\n\r\n--B--"),
            store(client, canary.encode(), DICOM),
            store(client, related(whole, header=canary)),
            store(client, related(whole), canary),
            store(client, related(whole), Accept=canary),
            store(client, related(whole), url=f"{STUDIES}/{canary}"),
        ]
        for answer in answers:
            seen = answer.data + json.dumps(dict(answer.headers)).encode()
            assert canary.encode() not in seen
        assert canary not in caplog.text


class TestAccess:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Api-Key wrong"},
            {"Authorization": "Basic letmein"},
            {"Authorization": "Api-Key"},
            {"X-API-Key": "wrong"},
        ],
    )
    def test_nothing_is_stored_without_a_valid_key(
        self, client: FlaskClient, reception: FakeReception, headers: dict[str, str]
    ) -> None:
        response = client.post(STUDIES, data=part10(), headers={**headers, "Content-Type": DICOM})
        assert response.status_code == 401
        assert response.content_type == "application/problem+json"
        assert response.headers["WWW-Authenticate"].startswith("Api-Key")
        assert not reception.sources

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "api-key letmein"},
            {"Authorization": "Bearer letmein"},
            {"X-API-Key": "letmein"},
        ],
    )
    def test_the_scheme_may_be_in_any_case_and_the_key_in_its_own_field(
        self, client: FlaskClient, headers: dict[str, str]
    ) -> None:
        response = client.post(STUDIES, data=part10(), headers={**headers, "Content-Type": DICOM})
        assert response.status_code == 200

    def test_other_methods_are_named(self, client: FlaskClient) -> None:
        response = client.delete(STUDIES, headers=AUTHORIZED)
        assert response.status_code == 405
        assert "POST" in response.headers["Allow"]
