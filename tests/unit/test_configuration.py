"""The configuration applies whole or not at all, and says everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.config.kinds import KIND_NAMES
from shared.config.service import HISTORY, ConfigurationService
from shared.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    InvalidConfigurationError,
)

ARCHIVE: dict[str, Any] = {"name": "archive", "type": "filesystem", "path": "archive"}
RULESET: dict[str, Any] = {
    "name": "ct",
    "execution_mode": "FIRST_MATCH",
    "rules": [
        {
            "name": "to-archive",
            "conditions": [{"type": "tag_equals", "tag": "(0x0008,0x0060)", "value": "CT"}],
            "actions": [],
            "storage_backends": ["archive"],
        }
    ],
}


def service_in(home: Path) -> ConfigurationService:
    return ConfigurationService(
        FolderObjectStore(home / "objects"),
        SqliteDocumentStore(home / "documents.db"),
        FileSecretStore(home / "secrets"),
        SystemClock(),
    )


@pytest.fixture
def service(tmp_path: Path) -> ConfigurationService:
    return service_in(tmp_path)


def faults(call: Any, *args: Any, **kwargs: Any) -> Mapping[str, str]:
    with pytest.raises(InvalidConfigurationError) as caught:
        call(*args, **kwargs)
    return {fault.path: fault.message for fault in caught.value.faults}


class TestConfiguration:
    def test_is_empty_before_the_first_change(self, service: ConfigurationService) -> None:
        assert service.current()[0] == 0
        assert service.export() == {**{name: [] for name in KIND_NAMES}, "settings": {}}

    def test_names_every_fault_and_applies_nothing(self, service: ConfigurationService) -> None:
        """Mending one fault at a time, each after a failed apply, is how nights are lost."""
        service.apply({"destinations": [ARCHIVE]}, by="t")
        before = service.current()
        found = faults(
            service.apply,
            {
                "destinations": [
                    ARCHIVE,
                    {"name": "pacs", "type": "dimse", "host": "pacs", "port": 0, "ae_titel": "X"},
                ],
                "rulesets": [
                    {**RULESET, "rules": [{**RULESET["rules"][0], "storage_backends": ["archiv"]}]}
                ],
                "settings": {"default_route": ["nowhere"], "validation": {"no-such": "warn"}},
            },
            by="t",
        )
        assert {
            "destinations[1].port",
            "destinations[1].ae_title",
            "destinations[1].ae_titel",
        } <= set(found)
        assert any(path.startswith("rulesets[0].rules[0].storage_backends[0]") for path in found)
        assert "is no finding" in found["settings.validation.no-such"]
        assert service.current() == before

    @pytest.mark.parametrize(
        ("entity", "path", "words"),
        [
            ({"template": "{PatientIDD}/x.dcm"}, "template", "PatientID"),
            ({"template": "{PatientID"}, "template", "expected '}'"),
            ({"template": "../{PatientID}"}, "template", "not usable"),
            ({"template": "/{PatientID}"}, "template", "relative"),
            ({"template": "image.dcm"}, "template", "names no Attribute"),
            ({"path": "../../etc"}, "path", "absolute"),
            ({"path": "a/../../b"}, "path", "absolute"),
        ],
    )
    def test_of_a_folder_is_checked_before_an_instance_finds_out(
        self, service: ConfigurationService, entity: dict[str, str], path: str, words: str
    ) -> None:
        """Every Instance would end in the exception log, one by one."""
        found = faults(service.create, "destinations", {**ARCHIVE, "name": "b", **entity}, by="t")
        assert list(found) == [path]
        assert words in found[path]

    def test_has_no_password_in_an_address(self, service: ConfigurationService) -> None:
        """Addresses are shown in exports, logs and the exception log."""
        entity = {"name": "c", "type": "dicomweb", "base_url": "http://me:CANARY@127.0.0.1/x"}
        found = faults(service.create, "destinations", entity, by="t")
        assert list(found) == ["base_url"]
        assert "credentials" in found["base_url"]
        assert "CANARY" not in str(found)

    def test_says_in_our_words_what_is_wrong_with_a_field(
        self, service: ConfigurationService
    ) -> None:
        pacs = {"name": "p", "type": "dimse", "host": "pacs", "port": 104, "ae_titel": "X"}
        with pytest.raises(InvalidConfigurationError) as caught:
            service.apply(
                {"listener": [], "destinations": [{**ARCHIVE, "type": "filesystm"}, pacs]}, by="t"
            )
        assert {str(fault) for fault in caught.value.faults} == {
            "listener: is no field here (did you mean listeners?)",
            "destinations[0].type: must be one of 'filesystem', 'dimse', 'dicomweb', "
            "'orthanc', 'google_healthcare', 'gcs', 'group'"
            " (did you mean filesystem?)",
            "destinations[1].ae_title: is missing",
            "destinations[1].ae_titel: is no field here (did you mean ae_title?)",
        }

    @pytest.mark.parametrize(
        ("document", "words"),
        [
            ({"destinations": [{**ARCHIVE, "name": "a b"}]}, "must be of letters, digits and"),
            ({"destinations": [{**ARCHIVE, "path": ""}]}, "path: must not be empty"),
            ({"destinations": [{**ARCHIVE, "timeout_s": 0}]}, "timeout_s: must be more than 0"),
            ({"destinations": [{**ARCHIVE, "on_conflict": "x"}]}, "must be 'keep_first', 'repl"),
            ({"rulesets": ["a", "b"]}, r"rulesets\[1\]: must be an object$"),
            ({"settings": {"default_route": "a"}}, "default_route: must be a list"),
        ],
    )
    def test_says_what_is_allowed(
        self, service: ConfigurationService, document: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(InvalidConfigurationError, match=words):
            service.apply(document, by="test")

    def test_puts_an_entity_in_the_place_of_its_namesake(
        self, service: ConfigurationService
    ) -> None:
        service.apply({"destinations": [ARCHIVE], "rulesets": [RULESET]}, by="test")
        service.put("rulesets", {**RULESET, "name": "other"}, by="test")
        service.put("rulesets", {**RULESET, "description": "new"}, by="test")
        found = [(one["name"], one.get("description")) for one in service.list("rulesets")]
        assert found == [("ct", "new"), ("other", None)]

    def test_does_not_lose_a_destination_that_is_in_use(
        self, service: ConfigurationService
    ) -> None:
        service.apply({"destinations": [ARCHIVE], "rulesets": [RULESET]}, by="t")
        assert faults(service.delete, "destinations", "archive", by="t")
        assert service.read("destinations", "archive") == ARCHIVE

    def test_of_an_entity_names_faults_as_its_sender_knows_it(
        self, service: ConfigurationService
    ) -> None:
        found = faults(service.create, "destinations", {"name": "a", "type": "filesystem"}, by="t")
        assert list(found) == ["path"]

    def test_keeps_secrets_out_of_itself(
        self, service: ConfigurationService, tmp_path: Path
    ) -> None:
        """An export is mailed and committed; the clear value must only be in the secret store."""
        service.create(
            "destinations",
            {
                "name": "cloud",
                "type": "dicomweb",
                "base_url": "https://dicom.example/dicomWeb",
                "auth_type": "bearer_token",
                "credentials": {"token": "CLEAR-TOKEN"},
            },
            by="t",
        )
        stored = service.read("destinations", "cloud")
        assert stored["credentials"] == {"token_secret": "destination-cloud-token"}
        assert FileSecretStore(tmp_path / "secrets").get("destination-cloud-token") == "CLEAR-TOKEN"
        for file in (tmp_path / "objects").rglob("*"):
            assert not file.is_file() or b"CLEAR-TOKEN" not in file.read_bytes()

    def test_that_is_applied_again_makes_no_new_version(
        self, service: ConfigurationService
    ) -> None:
        service.apply({"destinations": [ARCHIVE], "rulesets": [RULESET]}, by="t")
        version = service.current()[0]
        assert service.apply(service.export(), by="t") == service.export()
        assert service.current()[0] == version

    def test_refuses_what_is_there_and_misses_what_is_not(
        self, service: ConfigurationService
    ) -> None:
        service.create("destinations", ARCHIVE, by="t")
        with pytest.raises(DocumentExistsError):
            service.create("destinations", ARCHIVE, by="t")
        with pytest.raises(DocumentMissingError):
            service.replace("destinations", "other", ARCHIVE, by="t")
        with pytest.raises(DocumentChangedError):
            service.replace(
                "destinations", "archive", ARCHIVE, by="t", if_unchanged=lambda _: False
            )

    def test_loses_no_update_when_many_change_it_at_once(self, tmp_path: Path) -> None:
        services = [service_in(tmp_path) for _ in range(4)]

        def add(i: int) -> None:
            services[i % 4].create("destinations", {**ARCHIVE, "name": f"a{i}"}, by="t")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(16)))
        names = {entity["name"] for entity in service_in(tmp_path).list("destinations")}
        assert names == {f"a{i}" for i in range(16)}
        documents = SqliteDocumentStore(tmp_path / "documents.db")
        assert documents.count(HISTORY) == service_in(tmp_path).current()[0] == 16

    @pytest.mark.parametrize(
        "bad", [{"nonsense": []}, {"destinations": 3}, {"rulesets": [3]}, {"listeners": [{}]}]
    )
    def test_refuses_what_it_does_not_know(
        self, service: ConfigurationService, bad: dict[str, Any]
    ) -> None:
        assert faults(service.apply, bad, by="t")
