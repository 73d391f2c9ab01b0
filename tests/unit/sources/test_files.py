"""Folders and archives as sources: all that is in them comes once, and no archive does harm."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import bootstrap
from shared.adapters.sources.archives import Archive
from shared.environment import Environment
from shared.errors import SourceRefusedError
from shared.pipeline.polling import Poller
from shared.pipeline.source_states import state_of
from tests.data import build
from tests.embedded_system import System


class Landing:
    """A system that polls one folder."""

    def __init__(self, home: Path, **source: Any) -> None:
        self.system = System(home)
        self.ports = self.system.ports
        self.folder = home / "incoming" / "scans"
        self.folder.mkdir(parents=True)
        self.configure(**source)
        self.poller = Poller(self.ports)

    def configure(self, **source: Any) -> None:
        folder = {"name": "scans", "type": "folder", "path": "scans", "poll_interval": 60, **source}
        self.ports.configuration.apply({"sources": [folder]}, by="test")

    def put(self, name: str, data: bytes) -> Path:
        """A file that was last written an hour before now."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written_s = self.system.clock.now().timestamp() - 3600
        os.utime(path, (written_s, written_s))
        return path

    def poll(self) -> Mapping[str, int]:
        self.poller.run()
        self.system.clock.advance(60)
        counts: Mapping[str, int] = state_of("scans", self.ports)["last_poll"]
        return counts

    def instances(self) -> list[str]:
        self.system.work()
        page = self.ports.documents.query("instances", limit=500)
        return sorted(document.data["sop_instance_uid"] for document in page.documents)

    def exceptions(self) -> list[Mapping[str, Any]]:
        self.system.work()
        return [one.data for one in self.ports.documents.query("exceptions").documents]


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "home")


def archive(members: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


def uids(*names: str) -> list[str]:
    return sorted(build.uid(name) for name in names)


class TestFolder:
    def test_all_below_it_comes_once(self, landing: Landing) -> None:
        landing.put("a.dcm", build.ct(instance="a"))
        landing.put("deep/er/b", build.ct(instance="b"))
        assert landing.poll()["processed"] == 2
        assert landing.poll()["found"] == 0
        assert landing.instances() == uids("a", "b")

    def test_a_file_that_changes_comes_again(self, landing: Landing) -> None:
        landing.put("a.dcm", build.ct(instance="a"))
        landing.poll()
        landing.put("a.dcm", build.ct(instance="b"))
        assert landing.poll()["processed"] == 1
        assert landing.instances() == uids("a", "b")

    def test_one_that_may_still_be_written_is_left_for_later(self, landing: Landing) -> None:
        path = landing.put("a.dcm", build.ct())
        now_s = landing.system.clock.now().timestamp()
        os.utime(path, (now_s, now_s))
        assert landing.poll()["found"] == 0
        assert landing.poll()["found"] == 1

    def test_links_hidden_files_and_other_kinds_are_not_looked_at(self, landing: Landing) -> None:
        outside = landing.put("../outside", build.ct(instance="secret"))
        (landing.folder / "link.dcm").symlink_to(outside)
        (landing.folder / "links").symlink_to(outside.parent)
        for name in (".hidden", ".git/x", "readme.txt", "scan.dcm.part", "DICOMDIR"):
            landing.put(name, b"x")
        assert landing.poll()["found"] == 0

    def test_what_is_received_is_deleted_where_that_is_configured(self, landing: Landing) -> None:
        landing.configure(after="delete")
        good = landing.put("good.dcm", build.ct())
        bad = landing.put("bad.dcm", b"no DICOM" * 100)
        landing.poll()
        assert not good.exists()
        assert bad.exists(), "it is nowhere else"
        assert [entry["code"] for entry in landing.exceptions()] == ["not-dicom"]
        assert landing.poll()["found"] == 0

    def test_a_folder_that_is_not_there_is_said_to_be(self, landing: Landing) -> None:
        landing.configure(path="nowhere")
        landing.poll()
        state = state_of("scans", landing.ports)
        assert state["state"] == "failing"
        missing = landing.folder.with_name("nowhere")
        assert state["last_error"] == f"scans: no such folder: {missing}"

    def test_no_name_is_told_to_anybody(
        self, landing: Landing, caplog: pytest.LogCaptureFixture
    ) -> None:
        landing.put("CANARY^JANE/CANARY.dcm", b"no DICOM" * 100)
        landing.put("CANARY.zip", b"no archive")
        landing.put("more.zip", archive({"CANARY^JANE.dcm": b"no DICOM" * 100}))
        for _ in range(8):
            landing.poll()
            landing.system.clock.advance(3600)
        kept = [
            (document.key, document.data)
            for collection in ("source-states", "source-ledger", "exceptions")
            for document in landing.ports.documents.query(collection, limit=100).documents
        ]
        assert {e["code"] for e in landing.exceptions()} == {"not-dicom", "not-retrieved"}
        assert "CANARY" not in str(kept) + caplog.text + str(landing.exceptions())


class TestArchives:
    def test_members_come_once_those_of_archives_within_too(self, landing: Landing) -> None:
        inner = archive({"c": build.ct(instance="c"), "readme.txt": b"hello"})
        outer = {"a.dcm": build.ct(instance="a"), "x/b": build.ct(instance="b"), "in.zip": inner}
        landing.put("study.zip", archive(outer))
        assert landing.poll()["processed"] == 3
        assert landing.poll()["found"] == 0
        assert landing.instances() == uids("a", "b", "c")

    def test_names_that_lead_elsewhere_lead_nowhere(self, landing: Landing) -> None:
        landing.put("evil.zip", archive({"../../../../etc/evil": build.ct(), "/abs": build.ct()}))
        landing.poll()
        assert landing.instances() == uids("ct-1", "ct-1")
        assert not list(landing.folder.parent.parent.rglob("evil"))

    def test_it_is_deleted_once_all_of_it_is_received(self, landing: Landing) -> None:
        landing.configure(after="delete")
        whole = landing.put("whole.zip", archive({"a": build.ct()}))
        part = landing.put("part.zip", archive({"a": build.ct(), "b": b"no DICOM" * 99}))
        landing.poll()
        assert not whole.exists()
        assert part.exists()

    @pytest.mark.parametrize(
        ("limits", "words"),
        [
            ({"max_archive_members": 1}, "more than 1 members"),
            ({"max_archive_bytes": 1000}, "bytes are unpacked"),
        ],
    )
    def test_more_than_is_taken_is_refused_and_told(
        self, landing: Landing, limits: Mapping[str, int], words: str
    ) -> None:
        landing.configure(limits={**limits, "max_attempts": 1})
        landing.put("big.zip", archive({"a": build.ct(64, 64), "b": build.ct(instance="b")}))
        landing.put("good.dcm", build.ct(instance="good"))
        landing.poll()
        assert build.uid("good") in landing.instances()
        assert any(words in entry["message"] for entry in landing.exceptions())

    def test_a_bomb_is_not_unpacked(self) -> None:
        bomb = archive({"zeros": bytes(64 << 20)})
        with Archive(io.BytesIO(bomb), "s", max_members=9, max_bytes=1 << 20) as opened:
            [member] = opened.members()
            with pytest.raises(SourceRefusedError, match="bytes are unpacked"):
                sum(len(piece) for piece in opened.chunks(member))

    def test_archives_that_lie_too_deep_are_refused(self) -> None:
        nested = archive({"a": b"x"})
        for _ in range(5):
            nested = archive({"inner.zip": nested})
        with (
            Archive(io.BytesIO(nested), "s", max_members=99, max_bytes=1 << 20) as opened,
            pytest.raises(SourceRefusedError, match="deep"),
        ):
            list(opened.members())

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_a_damaged_archive_is_refused_and_nothing_else(self, data: st.DataObject) -> None:
        whole = bytearray(archive({"a": b"a" * 100, "b.zip": archive({"c": b"c" * 50})}))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        try:
            with Archive(io.BytesIO(whole), "s", max_members=99, max_bytes=1 << 20) as opened:
                for member in opened.members():
                    for _ in opened.chunks(member):
                        pass
        except SourceRefusedError:
            pass


def test_the_object_that_a_notification_told_of_is_not_taken_twice(tmp_path: Path) -> None:
    """The wiring knows what `ingest_object` marks as taken in."""
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    bucket = {"name": "landing", "type": "bucket", "bucket": "hospital-landing"}
    ports.configuration.apply({"sources": [bucket]}, by="test")
    assert ports.open_source is not None
    reader: Any = ports.open_source(ports.configuration.get().sources[0])
    from shared.pipeline.ingest import Landed

    landed = Landed("hospital-landing", "a.dcm", 7)
    assert not reader._files._is_taken(landed.key)
    import hashlib

    key = hashlib.sha256(landed.key.encode()).hexdigest()
    ports.documents.put("ingested", key, {"at": "2026-11-21T10:00:00.000000Z", "receipt_id": ""})
    assert reader._files._is_taken(landed.key)
