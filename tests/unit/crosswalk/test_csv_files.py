"""Crosswalks over CSV files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import (
    CrosswalkAmbiguousError,
    CrosswalkMisconfiguredError,
    CrosswalkUnavailableError,
)
from tests.unit.crosswalk.site import Site, new_ids

CSV = {"name": "ris", "type": "csv", "path": "ids.csv"}


def of_csv(**settings: Any) -> dict[str, Any]:
    return {key: value for key, value in new_ids(**settings).items() if key != "table"}


def write(site: Site, content: str | bytes, *, at_s: int = 1) -> Path:
    """The file, last changed so many seconds after 1970."""
    path = site.folder / "ids.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (at_s, at_s))
    return path


class TestCsv:
    def test_finds_the_row(self, site: Site) -> None:
        write(site, 'new_id,comment,old_id\nN1,"a, b\nand ""c""",P1\n\nN2,,P2\n')
        site.has(CSV, of_csv())
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N1"}
        assert site.lookup("new-ids", old_id="P2") == {"new_id": "N2"}
        assert site.lookup("new-ids", old_id="p1") is None

    @pytest.mark.parametrize(
        ("encoding", "written", "delimiter"),
        [
            ("utf-8", "utf-8-sig", ","),
            ("utf-8", "utf-8", ";"),
            ("utf-16", "utf-16", "\t"),
            ("cp1252", "cp1252", ";"),
        ],
    )
    def test_reads_what_spreadsheets_write(
        self, site: Site, encoding: str, written: str, delimiter: str
    ) -> None:
        write(site, f"old_id{delimiter}new_id\r\nMüller{delimiter}N1\r\n".encode(written))
        site.has({**CSV, "encoding": encoding, "delimiter": delimiter}, of_csv())
        assert site.lookup("new-ids", old_id="Müller") == {"new_id": "N1"}

    def test_an_empty_cell_is_no_answer(self, site: Site) -> None:
        write(site, "old_id,new_id\nP1,\n,N2\n")
        site.has(CSV, of_csv())
        assert site.lookup("new-ids", old_id="P1") == {}
        assert site.lookup("new-ids", old_id="") is None

    def test_refuses_to_choose_between_two_rows(self, site: Site) -> None:
        write(site, "old_id,new_id\nP1,N1\nP1,N2\nP2,N2\n")
        site.has(CSV, of_csv())
        with pytest.raises(CrosswalkAmbiguousError):
            site.lookup("new-ids", old_id="P1")
        assert site.lookup("new-ids", old_id="P2") == {"new_id": "N2"}

    def test_a_changed_file_counts_within_a_second(self, site: Site) -> None:
        write(site, "old_id,new_id\nP1,N1\n")
        site.has(CSV, of_csv())
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N1"}
        write(site, "old_id,new_id\nP1,N2\n", at_s=2)
        site.clock.advance(1)
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N2"}

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "no column 'old_id'"),
            ("old_id;new_id\nP1;N1\n", "no column 'old_id'"),
            ("old_id,new_id,old_id\nP1,N1,P2\n", "more than one column 'old_id'"),
            ("old_id,new_id\nP1,N1\nDOE,JANE,N2\n", "line 3 has 3 fields, the header 2"),
            ("old_id,new_id\nP1\n", "line 2 has 1 fields, the header 2"),
            ('old_id,new_id\n"P1,N1\n', "no CSV"),
            (b"old_id,new_id\nM\xfcller,N1\n", "not utf-8"),
        ],
    )
    def test_a_file_that_is_wrong_anywhere_answers_nothing(
        self, site: Site, content: str | bytes, reason: str
    ) -> None:
        """A row that slipped by one column would give a patient another's number."""
        write(site, content)
        site.has(CSV, of_csv())
        for _ in range(2):
            with pytest.raises(CrosswalkMisconfiguredError, match=reason) as caught:
                site.lookup("new-ids", old_id="P1")
        assert "DOE" not in str(caught.value)
        write(site, "old_id,new_id\nP1,N1\n", at_s=5)
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N1"}

    def test_a_missing_file_makes_the_instance_wait(self, site: Site) -> None:
        site.has(CSV, of_csv())
        with pytest.raises(CrosswalkUnavailableError, match="No such file"):
            site.lookup("new-ids", old_id="P1")

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        content=st.binary(max_size=200) | st.text(alphabet='old_id,new"\n\r;P1\0').map(str.encode)
    )
    def test_any_file_answers_or_says_what_is_wrong(self, site: Site, content: bytes) -> None:
        write(site, b"old_id,new_id\n" + content)
        site.has({**CSV, "path": str(site.folder / "ids.csv")}, of_csv())
        site.crosswalks.close()
        try:
            site.lookup("new-ids", old_id="P1")
        except (CrosswalkMisconfiguredError, CrosswalkAmbiguousError):
            return
