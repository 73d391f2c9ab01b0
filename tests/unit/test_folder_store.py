"""A folder of files that is searched and retrieved from, while others put files there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.adapters.archive import Archive
from shared.adapters.archives import Archives
from shared.adapters.folder_store.archive import FolderArchive
from shared.adapters.folder_store.index import FolderIndex
from shared.config.entities import Configuration
from shared.config.query_retrieve import QueryRetrieve
from shared.dicom.header import Header
from shared.dicom.query import Key, Level, Match, Query
from shared.errors import SourceMisconfiguredError, SourceUnavailableError
from shared.ports import FoundInstance, Retrieval
from tests.data import build
from tests.fakes import FakeClock, MemorySecrets

NAME, ID, DATE = "00100010", "00100020", "00080020"
STUDY, SERIES, SOP = "0020000D", "0020000E", "00080018"
LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    root.mkdir()
    return root


@pytest.fixture
def index(root: Path, tmp_path: Path) -> Iterator[FolderIndex]:
    index = FolderIndex("folder", root, tmp_path / "index" / "folder.db")
    yield index
    index.close()


@pytest.fixture
def archive(index: FolderIndex, monkeypatch: pytest.MonkeyPatch) -> FolderArchive:
    """It looks at the folder for each request."""
    monkeypatch.setattr("shared.adapters.folder_store.index._LOOK_EVERY_S", -1)
    return FolderArchive(index)


def put(
    root: Path, instance: str, series: str = "s1", study: str = "study", patient_id: str = "P"
) -> Path:
    path = root / study / series / f"{instance}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build.ct(instance=instance, series=series, study=study, patient_id=patient_id))
    return path


def as_of_long_ago(root: Path) -> None:
    """All that is there, so that what changes later shows by its time."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, LONG_AGO)


def find(archive: FolderArchive | Archive, level: Level, *keys: Key) -> list[Match]:
    return [one for one in archive.find(Query(level, keys)) if one is not None]


def listed(archive: FolderArchive, *keys: Key, level: Level = Level.STUDY) -> set[str]:
    found = archive.instances(Query(level, keys))
    return {one[1].uid for one in found if one is not None}


def uids(*names: str) -> set[str]:
    return {build.uid(name) for name in names}


def of_study(name: str) -> Key:
    return Key(STUDY, "UI", (build.uid(name),))


class TestFinding:
    def test_shows_each_entity_once_at_every_level(
        self, archive: FolderArchive, root: Path
    ) -> None:
        for n in range(4):
            put(root, f"i{n}", f"s{n % 2}", f"study-{n // 3}", patient_id="P")
        put(root, "other", "s9", "study-9", patient_id="Q")
        for level, tag, count in (
            (Level.PATIENT, ID, 2),
            (Level.STUDY, STUDY, 3),
            (Level.SERIES, SERIES, 3),
            (Level.IMAGE, SOP, 5),
        ):
            values = [one.found[tag]["Value"][0] for one in find(archive, level, Key(tag, "UI"))]
            assert (len(values), len(set(values))) == (count, count), level

    def test_matches_names_wild_cards_and_what_only_the_file_knows(
        self, archive: FolderArchive, root: Path
    ) -> None:
        name = build.element(0x00100010, "PN", "DOE^JANE")
        text = build.element(0x00081040, "LO", "RADIOLOGY")
        path = put(root, "a", study="with")
        path.write_bytes(
            build.ct(instance="a", study="with", changes={0x00100010: name, 0x00081040: text})
        )
        put(root, "b", study="without")
        for key in (Key(NAME, "PN", ("d*^J?NE",)), Key("00081040", "LO", ("RADIOLOGY",))):
            (match,) = find(archive, Level.STUDY, key, Key(STUDY, "UI"))
            assert match.is_certain
            assert match.found[STUDY]["Value"] == [build.uid("with")]
        assert find(archive, Level.STUDY, Key("00081040", "LO", ("PATHOLOGY",))) == []

    def test_counts_what_belongs_to_an_entity(self, archive: FolderArchive, root: Path) -> None:
        for n in range(5):
            put(root, f"i{n}", f"s{n % 2}", f"study-{n // 4}", patient_id="P")
        numbers = ("00201200", "00201202", "00201204")
        keys = [Key(tag, "IS") for tag in numbers]
        (patient,) = find(archive, Level.PATIENT, *keys)
        assert [patient.found[tag]["Value"] for tag in numbers] == [[2], [2], [5]]
        keys = [of_study("study-0"), Key("00201206", "IS"), Key("00201208", "IS")]
        (study,) = find(archive, Level.STUDY, *keys, Key("00080061", "CS", ("CT",)))
        assert [study.found[key.tag]["Value"] for key in keys[1:]] == [[2], [4]]
        assert study.found["00080061"]["Value"] == ["CT"]
        assert find(archive, Level.STUDY, Key("00080061", "CS", ("MR",))) == []
        key = Key("00201209", "IS")
        (series,) = find(archive, Level.SERIES, Key(SERIES, "UI", (build.uid("s1"),)), key)
        assert series.found[key.tag]["Value"] == [2]

    def test_says_that_it_does_not_match_sequences(
        self, archive: FolderArchive, root: Path
    ) -> None:
        put(root, "a")
        inner = Key("00081155", "UI", ("1.2",))
        (match,) = find(archive, Level.IMAGE, Key("00081140", "SQ", items=((inner,),)))
        assert not match.is_certain

    def test_what_is_no_instance_is_left_out(self, archive: FolderArchive, root: Path) -> None:
        put(root, "a")
        (root / "notes.txt").write_bytes(b"hello")
        (root / "broken.dcm").write_bytes(build.ct(instance="broken")[:200])
        (root / ".half.part").write_bytes(build.ct(instance="half"))
        os.symlink(root / "study", root / "again")
        os.symlink("/etc/passwd", root / "passwd")
        (root / os.fsdecode(b"\xff.dcm")).write_bytes(build.ct(instance="named"))
        assert len(find(archive, Level.IMAGE, Key(SOP, "UI"))) == 1

    def test_a_folder_that_is_not_there_has_nothing_unless_it_had_something(
        self, archive: FolderArchive, root: Path
    ) -> None:
        """Before the first delivery there is none; later its volume is not mounted."""
        root.rmdir()
        assert find(archive, Level.STUDY) == []
        put(root, "a")
        assert len(find(archive, Level.STUDY)) == 1
        root.rename(root.with_name("elsewhere"))
        with pytest.raises(SourceUnavailableError, match="not there"):
            find(archive, Level.STUDY)
        root.with_name("elsewhere").rename(root)
        assert len(find(archive, Level.STUDY)) == 1

    def test_more_uids_than_sqlite_takes_are_matched_all_the_same(
        self, archive: FolderArchive, root: Path
    ) -> None:
        put(root, "a")
        many = tuple(f"1.2.{n}" for n in range(40_000))
        assert listed(archive, Key(SOP, "UI", (*many, build.uid("a")))) == uids("a")
        assert listed(archive, Key(SOP, "UI", many)) == set()


class TestWhatChanges:
    def test_is_seen_when_it_comes_and_when_it_goes(
        self, archive: FolderArchive, root: Path
    ) -> None:
        gone = put(root, "gone")
        put(root, "stays", "s2")
        as_of_long_ago(root)
        assert listed(archive, of_study("study")) == uids("gone", "stays")
        put(root, "late", "s3")
        gone.unlink()
        assert listed(archive, of_study("study")) == uids("stays", "late")
        shutil.rmtree(root / "study" / "s2")
        assert listed(archive, of_study("study")) == uids("late")

    def test_is_seen_though_two_changes_have_the_same_time(
        self, archive: FolderArchive, root: Path
    ) -> None:
        """Times of modification are as coarse as two seconds."""
        path = put(root, "first")
        assert listed(archive, of_study("study")) == uids("first")
        before = path.parent.stat()
        put(root, "second")
        os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert listed(archive, of_study("study")) == uids("first", "second")

    def test_what_could_not_be_read_is_read_again_and_keeps_nothing_else_back(
        self,
        archive: FolderArchive,
        index: FolderIndex,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A disk that failed for a moment must not hide an Instance for ever."""
        put(root, "good")
        put(root, "bad")
        as_of_long_ago(root)
        read = index._header

        def failing(path: str) -> Header | None:
            if "bad" in path:
                raise OSError(errno.EIO, "input/output error")
            return read(path)

        with monkeypatch.context() as patch:
            patch.setattr(index, "_header", failing)
            assert listed(archive, of_study("study")) == uids("good")
        assert listed(archive, of_study("study")) == uids("good", "bad")

    def test_a_file_that_goes_while_it_is_looked_at_hides_no_other(
        self,
        archive: FolderArchive,
        index: FolderIndex,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        put(root, "stays")
        going = put(root, "goes")
        as_of_long_ago(root)
        read = index._header

        def vanishing(path: str) -> Header | None:
            going.unlink(missing_ok=True)
            return read(path)

        with monkeypatch.context() as patch:
            patch.setattr(index, "_header", vanishing)
            assert listed(archive, of_study("study")) <= uids("stays", "goes")
        assert listed(archive, of_study("study")) == uids("stays")

    def test_is_seen_where_a_file_takes_the_place_of_another(
        self, archive: FolderArchive, root: Path
    ) -> None:
        path = put(root, "a", patient_id="WRONG")
        as_of_long_ago(root)
        assert listed(archive, Key(ID, "LO", ("WRONG",)), level=Level.PATIENT) == uids("a")
        new = path.with_name(".new")
        new.write_bytes(build.ct(instance="a", series="s1", patient_id="RIGHT"))
        new.rename(path)
        assert listed(archive, Key(ID, "LO", ("WRONG",)), level=Level.PATIENT) == set()
        assert listed(archive, Key(ID, "LO", ("RIGHT",)), level=Level.PATIENT) == uids("a")

    @pytest.mark.parametrize("steps", range(0, 12, 2))
    def test_is_not_lost_on_others_where_the_first_look_ended_in_the_middle(
        self, archive: FolderArchive, root: Path, tmp_path: Path, steps: int
    ) -> None:
        """Whoever looked was killed, or still looks: another process answers with all."""
        for n in range(6):
            put(root, f"i{n}", f"s{n % 2}", f"study-{n // 2}")
        as_of_long_ago(root)
        looking = archive.find(Query(Level.IMAGE, ()))
        for _ in range(steps):
            next(looking, None)
        other = FolderIndex("folder", root, tmp_path / "index" / "folder.db")
        assert len(find(FolderArchive(other), Level.IMAGE)) == 6
        other.close()
        del looking  # closes it

    def test_is_all_that_is_read_again_after_a_restart(
        self, archive: FolderArchive, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(root, "a")
        as_of_long_ago(root)
        find(archive, Level.STUDY)
        other = FolderIndex("folder", root, tmp_path / "index" / "folder.db")
        read: list[str] = []
        header = other._header

        def noted(path: str) -> Header | None:
            read.append(path)
            return header(path)

        monkeypatch.setattr(other, "_header", noted)
        put(root, "b", "s2")
        assert len(find(FolderArchive(other), Level.IMAGE)) == 2
        assert read == ["study/s2/b.dcm"]
        other.close()


class TestRetrieving:
    def test_gives_the_files_as_they_are(self, archive: FolderArchive, root: Path) -> None:
        path = put(root, "a")
        assert listed(archive, of_study("study")) == uids("a")
        wanted = tuple(FoundInstance(uid) for uid in (build.uid("a"), build.uid("nobody")))
        gotten = {
            one.uid: b"".join(one.chunks)
            for one in archive.retrieve(Retrieval(build.uid("study"), wanted))
        }
        assert gotten == {build.uid("a"): path.read_bytes()}

    def test_gives_fewer_where_a_file_went_meanwhile(
        self, archive: FolderArchive, root: Path
    ) -> None:
        path = put(root, "a")
        listed(archive, of_study("study"))
        path.unlink()
        wanted = (FoundInstance(build.uid("a")),)
        assert list(archive.retrieve(Retrieval(build.uid("study"), wanted))) == []

    def test_a_wild_card_names_no_more_than_it_fits(
        self, archive: FolderArchive, root: Path
    ) -> None:
        put(root, "a", patient_id="P1")
        put(root, "b", patient_id="Q1")
        assert listed(archive, Key(ID, "LO", ("P*",)), level=Level.PATIENT) == uids("a")

    def test_keys_that_are_not_unique_do_not_count(
        self, archive: FolderArchive, root: Path
    ) -> None:
        put(root, "a")
        other = Key("00080060", "CS", ("MR",))
        assert listed(archive, of_study("study"), other) == uids("a")


def test_an_index_that_cannot_be_kept_is_an_error_of_the_store(root: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    index = FolderIndex("folder", root, tmp_path / "taken" / "folder.db")
    with pytest.raises(SourceUnavailableError):
        find(FolderArchive(index), Level.STUDY)


class TestAsTheStoreOfAListener:
    def archives(self, storage_root: Path | None, home: Path) -> Archives:
        folder = {"name": "primary", "type": "filesystem", "path": "primary"}
        configuration = Configuration.model_validate_json(json.dumps({"destinations": [folder]}))
        return Archives(lambda: configuration, MemorySecrets(), FakeClock(), home, storage_root)

    def test_is_a_destination_of_ours(self, tmp_path: Path) -> None:
        put(tmp_path / "storage" / "primary", "a")
        archives = self.archives(tmp_path / "storage", tmp_path)
        assert len(find(archives.of("primary"), Level.STUDY)) == 1
        assert archives.of("primary") is archives.of("primary")
        assert not archives.matches_fuzzily(QueryRetrieve(store="primary", fuzzy=True))

    def test_is_none_where_nothing_is_mounted(self, tmp_path: Path) -> None:
        with pytest.raises(SourceMisconfiguredError, match="no volume"):
            self.archives(None, tmp_path).of("primary")
