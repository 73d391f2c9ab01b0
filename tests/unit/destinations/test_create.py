"""A destination is made of its configuration, and connects when it is first used."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.adapters.destinations import create
from shared.adapters.destinations.dicomweb import DicomwebDestination
from shared.adapters.destinations.dimse import StorageScpDestination
from shared.adapters.destinations.filesystem import FolderDestination
from shared.config import entities
from shared.errors import DestinationMisconfiguredError, SecretMissingError
from tests.data import build
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.scripted_http import Answer, ScriptedHttp
from tests.unit.destinations.scripted_scp import ScriptedScp, stores


class Secrets:
    """A SecretStore of one secret."""

    def get(self, name: str) -> str:
        if name != "archive-secret":
            raise SecretMissingError(name)
        return "s3cret"

    def put(self, name: str, value: str) -> None: ...

    def delete(self, name: str) -> None: ...


def test_a_relative_folder_lies_below_the_storage_root(tmp_path: Path) -> None:
    entity = entities.FilesystemDestination(
        name="primary", type="filesystem", path="primary", template="{SOPInstanceUID}.dcm"
    )
    destination = create(entity, Secrets(), storage_root=tmp_path / "storage")
    destination.deliver(outgoing(tmp_path, build.ct()))
    path = tmp_path / "storage" / "primary" / f"{build.uid('ct-1')}.dcm"
    assert path.read_bytes() == build.ct()


def test_an_absolute_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    entity = entities.FilesystemDestination(
        name="elsewhere", type="filesystem", path=str(tmp_path / "else")
    )
    create(entity, Secrets(), storage_root=tmp_path / "storage").check()
    assert (tmp_path / "else").is_dir()


def test_an_unusable_template_is_said_when_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(DestinationMisconfiguredError, match="Nonsense"):
        FolderDestination("primary", tmp_path, "{Nonsense}")


def test_a_storage_scp(tmp_path: Path) -> None:
    with ScriptedScp(stores()) as scp:
        entity = entities.DimseDestination(
            name="pacs", type="dimse", host="127.0.0.1", port=scp.port, ae_title="PACS"
        )
        destination = create(entity, Secrets())
        assert isinstance(destination, StorageScpDestination)
        assert destination.deliver(outgoing(tmp_path, build.ct())) == "0000H"
        destination.close()


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"auth_type": "none"}, None),
        (
            {
                "auth_type": "basic",
                "credentials": {"username": "axiom", "password_secret": "archive-secret"},
            },
            "Basic YXhpb206czNjcmV0",
        ),
        (
            {"auth_type": "bearer_token", "credentials": {"token_secret": "archive-secret"}},
            "Bearer s3cret",
        ),
    ],
)
def test_a_dicomweb_server_with_each_way_to_sign_in(
    tmp_path: Path, settings: dict[str, object], header: str | None
) -> None:
    with ScriptedHttp(lambda request: Answer(200)) as server:
        entity = entities.DicomwebDestination.model_validate(
            {"name": "archive", "type": "dicomweb", "base_url": server.url, **settings}
        )
        destination = create(entity, Secrets())
        assert isinstance(destination, DicomwebDestination)
        assert destination.deliver(outgoing(tmp_path, build.ct())) == "200"
        destination.close()
    assert server.requests[0].headers.get("Authorization") == header
