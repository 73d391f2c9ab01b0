"""Signing in to a DICOMweb source as whom the process runs."""

from __future__ import annotations

import json
from typing import Any, cast

import google.auth
import pytest
import requests
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from pydantic import ValidationError

from shared.adapters.signing_in import authorization
from shared.config.entities import Configuration
from shared.config.sources import DicomwebSource
from shared.errors import SourceMisconfiguredError, SourceUnavailableError
from tests.unit.destinations.test_create import Secrets

URL = "https://healthcare.googleapis.com/v1/projects/p/dicomWeb"


class Tokens(Credentials):
    """Tokens `t1`, `t2` and so on, the next one at each refresh."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refreshes = 0
        self.fails = False

    def refresh(self, request: Any) -> None:
        if self.fails:
            raise RefreshError("no")  # type: ignore[no-untyped-call]
        self.refreshes += 1
        self.token = f"t{self.refreshes}"


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Tokens:
    found = Tokens()
    monkeypatch.setattr(google.auth, "default", lambda **_: (found, "project"))
    return found


def source(base_url: str = URL) -> DicomwebSource:
    document = {
        "name": "store",
        "type": "dicomweb",
        "base_url": base_url,
        "auth_type": "google",
        "poll_interval": 60,
    }
    whole = Configuration.model_validate_json(json.dumps({"sources": [document]}))
    return cast(DicomwebSource, whole.sources[0])


def header(sign_in: Any) -> str:
    request = requests.Request("GET", f"{URL}/studies", auth=sign_in).prepare()
    return str(request.headers["Authorization"])


def test_each_request_shows_the_token_that_is_good_now(tokens: Tokens) -> None:
    sign_in = authorization(source(), Secrets())
    assert tokens.refreshes == 0
    assert [header(sign_in), header(sign_in)] == ["Bearer t1", "Bearer t1"]
    assert sign_in.renew()
    assert header(sign_in) == "Bearer t2"


def test_a_token_that_cannot_be_had_is_waited_for(tokens: Tokens) -> None:
    tokens.fails = True
    sign_in = authorization(source(), Secrets())
    with pytest.raises(SourceUnavailableError, match="store: no access token can be had"):
        header(sign_in)
    tokens.fails = False
    assert header(sign_in) == "Bearer t1"


def test_a_machine_without_credentials_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(**_: object) -> None:
        raise DefaultCredentialsError("none")  # type: ignore[no-untyped-call]

    monkeypatch.setattr(google.auth, "default", nobody)
    sign_in = authorization(source(), Secrets())
    with pytest.raises(SourceMisconfiguredError, match="no credentials of Google Cloud"):
        header(sign_in)


@pytest.mark.parametrize(
    "url",
    [
        "http://healthcare.googleapis.com/v1",
        "https://pacs.example/dicom-web",
        "https://googleapis.com.example/v1",
        "https://notgoogleapis.com/v1",
    ],
)
def test_nobody_but_google_is_to_see_the_token(url: str) -> None:
    with pytest.raises(ValidationError, match="its token to https"):
        source(url)
