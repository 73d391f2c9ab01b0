"""The cloud platform is wired by its settings, and nothing is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared import bootstrap
from shared.adapters.cloud.environment import CloudEnvironment, Oidc
from shared.adapters.cloud.lazily import lazily
from shared.environment import Environment
from shared.messages import Topic
from shared.pipeline.push import PushRequest

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {
    "AXIOM_PLATFORM": "cloud",
    "AXIOM_PROJECT": "p",
    "AXIOM_BUCKET": "received",
    "AXIOM_AUDIENCE": "a, b",
    "AXIOM_CALLERS": "push@p.iam.gserviceaccount.com",
}


class TestSettings:
    def test_are_read(self) -> None:
        store = "projects/p/locations/l/datasets/d/dicomStores/s"
        found = CloudEnvironment.read({**SETTINGS, "AXIOM_DICOM_STORE": store})
        assert found.audiences == ("a", "b")
        assert found.oidc is Oidc.VERIFY
        assert str(found.dicom_store) == store

    @pytest.mark.parametrize("name", ["AXIOM_BUCKET", "AXIOM_AUDIENCE", "AXIOM_CALLERS"])
    def test_that_are_missing_are_named(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            CloudEnvironment.read({**SETTINGS, name: ""})

    def test_one_of_two_names_the_project(self) -> None:
        given = {**SETTINGS, "AXIOM_PROJECT": "", "GOOGLE_CLOUD_PROJECT": "other"}
        assert CloudEnvironment.read(given).project == "other"
        with pytest.raises(ValueError, match="AXIOM_PROJECT or GOOGLE_CLOUD_PROJECT"):
            CloudEnvironment.read({**SETTINGS, "AXIOM_PROJECT": ""})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AXIOM_OIDC", "maybe"),
            ("AXIOM_DICOM_STORE", "projects/p"),
            ("AXIOM_SECRET_PREFIX", "a/b"),
            ("AXIOM_PLATFORM", "moon"),
        ],
    )
    def test_that_are_wrong_are_named(self, name: str, value: str) -> None:
        read = Environment.read if name == "AXIOM_PLATFORM" else CloudEnvironment.read
        with pytest.raises(ValueError, match=name):
            read({**SETTINGS, name: value})

    def test_nobody_is_asked_for_a_token_beside_an_emulator_alone(self) -> None:
        given = {**SETTINGS, "AXIOM_OIDC": "off", "AXIOM_CALLERS": "", "AXIOM_AUDIENCE": ""}
        with pytest.raises(ValueError, match="PUBSUB_EMULATOR_HOST"):
            CloudEnvironment.read(given)
        emulated = CloudEnvironment.read({**given, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"})
        assert emulated.pubsub_emulator == "127.0.0.1:1"


def test_an_adapter_is_made_once_and_again_only_after_it_failed() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("x")
        if len(made) == 1:
            raise OSError
        return "text"

    stands_for = lazily(make)
    with pytest.raises(OSError):
        stands_for.upper()
    assert stands_for.upper() == stands_for.upper() == "TEXT"
    assert len(made) == 2


class TestAFunction:
    def test_refuses_who_has_no_token_and_touches_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """There is no Google here: whatever was asked would have failed."""
        from functions.clean_up.main import clean_up
        from functions.validate_instance.main import validate_instance

        for name, value in {**SETTINGS, "AXIOM_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        bootstrap.from_environment.cache_clear()
        try:
            for function in (validate_instance, clean_up):
                _, status, _ = function(PushRequest(b"{}", {}))
                assert status == 401
        finally:
            bootstrap.from_environment.cache_clear()

    def test_imports_no_client_before_it_is_needed(self, tmp_path: Path) -> None:
        """Each costs half a second of CPU at every cold start."""
        program = (
            "import json, sys\n"
            "from functions.validate_instance.main import validate_instance\n"
            "from shared import bootstrap\n"
            "bootstrap.from_environment()\n"
            "names = ('google.cloud.firestore', 'google.cloud.storage', 'google.pubsub_v1',"
            " 'google.cloud.secretmanager_v1', 'grpc', 'pydicom', 'numpy')\n"
            "print(json.dumps([name for name in names if name in sys.modules]))\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**SETTINGS, "AXIOM_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(ran.stdout) == []


def test_terraform_s_address_of_a_topic_is_named() -> None:
    from shared.adapters.cloud.message_bus import terraform_address

    assert terraform_address(Topic.INSTANCE_RECEIVED) == (
        'module.topics["instance-received"].google_pubsub_topic.this'
    )
