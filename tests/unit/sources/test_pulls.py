"""Pulling a list on demand: a row for each, pause and resume, and nothing is lost or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.errors import SourceMisconfiguredError, SourceUnavailableError, WrongStateError
from shared.messages import Topic
from shared.pipeline import pulls
from shared.pipeline.pulls import Wanted, csv_text, read_csv
from tests.data import build
from tests.unit.sources.asking import Asking
from tests.unit.web_fakes import AUTHORIZED, client_over


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(tmp_path / "home")


def study(name: str) -> Wanted:
    return Wanted("StudyInstanceUID", build.uid(name))


def pull(asking: Asking, *wanted: Wanted, **more: Any) -> dict[str, Any]:
    job = pulls.create("pacs", wanted, by="test", ports=asking.ports, **more)
    assert pulls.work(job["id"], asking.ports)
    return state(asking, job["id"])


def state(asking: Asking, job_id: str) -> dict[str, Any]:
    found = asking.ports.documents.get("jobs", job_id)
    assert found is not None
    return dict(found.data)


def rows(asking: Asking, job: dict[str, Any]) -> list[Any]:
    return [(row["state"], row["received"]) for row in pulls.all_rows(job["id"], asking.ports)]


class TestList:
    def test_each_row_says_what_became_of_it(self, asking: Asking) -> None:
        asking.pacs.put("a1", study="a")
        asking.pacs.put("a2", study="a")
        asking.pacs.put("b1", study="b")
        job = pull(asking, study("a"), study("nowhere"), study("b"))
        assert job["state"] == "finished"
        assert (job["total"], job["done"], job["unknown"], job["instances"]) == (3, 2, 1, 3)
        assert rows(asking, job) == [("done", 2), ("unknown", 0), ("done", 1)]
        assert len(asking.received()) == 3

    def test_what_came_already_comes_again_if_that_is_wanted(self, asking: Asking) -> None:
        asking.pacs.put("a1", study="a")
        asking.poll()
        assert rows(asking, pull(asking, study("a"))) == [("done", 0)]
        assert rows(asking, pull(asking, study("a"), again=True)) == [("done", 1)]
        assert len(asking.received()) == 2

    def test_it_pauses_and_goes_on(self, asking: Asking) -> None:
        for n in range(30):
            asking.pacs.put(f"i{n}", study=f"s{n}")
        wanted = [study(f"s{n}") for n in range(30)]
        job = pulls.create("pacs", wanted, by="test", ports=asking.ports)
        told: list[Any] = []

        def tell(data: Any) -> None:
            told.append(data)
            if len(told) == 1:
                pulls.pause(job["id"], by="test", ports=asking.ports)

        assert pulls.work(job["id"], asking.ports, tell=tell)
        paused = state(asking, job["id"])
        assert (paused["state"], paused["done"]) == ("paused", 20)
        with pytest.raises(WrongStateError):
            pulls.pause(job["id"], by="test", ports=asking.ports)
        pulls.resume(job["id"], by="test", ports=asking.ports)
        assert pulls.work(job["id"], asking.ports)
        assert state(asking, job["id"])["done"] == 30
        assert len(asking.pacs.given) == 30

    def test_a_source_that_cannot_be_asked_leaves_the_row_for_later(self, asking: Asking) -> None:
        asking.pacs.put("a1", study="a")
        given = asking.pacs.find

        def fail(keys: Any) -> Any:
            raise SourceUnavailableError("pacs", "no answer in time")

        asking.pacs.find = fail  # type: ignore[method-assign]
        job = pulls.create("pacs", [study("a")], by="test", ports=asking.ports)
        with pytest.raises(SourceUnavailableError):
            pulls.work(job["id"], asking.ports)
        assert state(asking, job["id"])["reason"] == "pacs: no answer in time"
        asking.pacs.find = given  # type: ignore[method-assign]
        assert pulls.work(job["id"], asking.ports)
        assert state(asking, job["id"])["done"] == 1

    def test_the_running_system_works_on_it(self, asking: Asking) -> None:
        asking.pacs.put("a1", study="a")
        job = pulls.create("pacs", [study("a")], by="test", ports=asking.ports)
        pulls.start(job["id"], asking.ports)
        from shared.messages import JobRequested
        from shared.pipeline import jobs

        jobs.run(JobRequested(job["id"]), asking.ports)
        assert state(asking, job["id"])["state"] == "finished"
        bus: Any = asking.ports.bus
        assert bus.depth()[Topic.JOB_REQUESTED].messages == 1

    def test_no_such_source_is_said_before_anything_is_kept(self, asking: Asking) -> None:
        with pytest.raises(SourceMisconfiguredError):
            pulls.create("nobody", [study("a")], by="test", ports=asking.ports)
        assert asking.ports.documents.count("jobs") == 0


class TestCsv:
    def test_a_column_is_found_by_its_name(self) -> None:
        text = "﻿name,Accession Number\r\nx,A-1\r\ny,A-2\r\n"
        assert read_csv(text) == [Wanted("AccessionNumber", a) for a in ("A-1", "A-2")]

    @pytest.mark.parametrize("between", [";", "\t"])
    def test_columns_are_parted_as_spreadsheets_do(self, between: str) -> None:
        """One that has commas for its decimals parts columns by semicolons."""
        text = between.join(["Study Instance UID", "n"]) + f"\n1.2.3{between}0,5\n1.2.4{between}\n"
        assert read_csv(text) == [Wanted("StudyInstanceUID", uid) for uid in ("1.2.3", "1.2.4")]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_files_are_read_in_the_encodings_of_spreadsheets(self, encoding: str) -> None:
        """The names beside the numbers have umlauts."""
        data = "Name;AccessionNumber\r\nMüller;A-1\r\n".encode(encoding)
        assert read_csv(csv_text(data)) == [Wanted("AccessionNumber", "A-1")]

    @pytest.mark.parametrize("text", ["who,what\nDOE,1\n", "DOE^JANE,A-1\n", '"a\0",b\n'])
    def test_of_columns_that_nothing_names_none_is_guessed(self, text: str) -> None:
        """The first may be names, which nobody is to be asked for."""
        with pytest.raises(ValueError, match=r"^line 1 ") as caught:
            read_csv(text)
        assert "DOE" not in str(caught.value)

    def test_one_column_alone_is_told_by_its_form(self) -> None:
        assert read_csv("1.2.3\n\nA77\n") == [
            Wanted("StudyInstanceUID", "1.2.3"),
            Wanted("AccessionNumber", "A77"),
        ]

    @pytest.mark.parametrize("text", ["StudyInstanceUID\nDOE^JANE", "accession\nA*", "A\\B"])
    def test_what_is_neither_is_named_by_its_line_alone(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^line \d is no ") as caught:
            read_csv(text)
        assert "DOE" not in str(caught.value)

    def test_lines_are_counted_as_the_file_has_them(self) -> None:
        with pytest.raises(ValueError, match=r"^line 4 is no"):
            read_csv("StudyInstanceUID\n\n1.2.3\nDOE\n")


def test_over_http_accession_numbers_are_told_by_their_row_alone(asking: Asking) -> None:
    asking.pacs.put("a1", study="a")
    client = client_over(asking.ports)
    asked = {"source": "pacs", "studies": [build.uid("a")], "accessions": ["CANARY-4711"]}
    started = client.post("/api/v1/pulls", json=asked, headers=AUTHORIZED)
    assert started.status_code == 202, started.text
    url = started.headers["Location"]
    assert pulls.work(started.get_json()["id"], asking.ports)
    job = client.get(url, headers=AUTHORIZED)
    listed = client.get(f"{url}/rows", headers=AUTHORIZED)
    assert job.get_json()["state"] == "finished"
    assert [row["number"] for row in listed.get_json()["items"]] == [1, 2]
    assert "CANARY" not in job.text + listed.text + started.text
    refused = client.post(f"{url}/pause", headers=AUTHORIZED)
    assert refused.status_code == 409
    wrong = client.post("/api/v1/pulls", json={"source": "pacs"}, headers=AUTHORIZED)
    assert wrong.status_code == 422
