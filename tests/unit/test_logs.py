"""Log lines: JSON for machines, few words for a person at a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from shared import logs
from shared.errors import DestinationRefusedError
from tests.conftest import ROOT

_PROGRAM = """
from shared import logs
import logging
import warnings
logs.configure("gateway")
warnings.warn("Invalid value for VR DA: 'CANARY^YELLOW'")
logging.getLogger("x").info("listening")
logging.getLogger("x").warning("refused", extra={"code": "not-dicom"})
logging.getLogger("shared.x").debug("deciding")
logging.getLogger("x").debug("SELECT 'CANARY^YELLOW'")
logging.getLogger("urllib3.connectionpool").warning("GET /studies?00100010=CANARY%5EYELLOW")
"""


def record(message: str = "refused", **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("axiom", logging.WARNING, "", 1, message, (), None)
    made.__dict__.update(extra)
    return made


class TestText:
    def test_is_one_line_with_all_that_was_said(self) -> None:
        line = logs.TextFormatter("gateway").format(record(code="not-dicom", ae="A\nB\x1b[2J"))
        assert line.endswith('gateway  warning: refused  code=not-dicom  ae="A\\nB\\u001b[2J"')

    def test_says_where_it_went_wrong_and_quotes_nothing_that_is_not_ours(self) -> None:
        lines = []
        for error in (ValueError("CANARY^YELLOW"), DestinationRefusedError("pacs", "A900H")):
            said = record()
            try:
                raise error
            except Exception:
                said.exc_info = sys.exc_info()
            lines.append(logs.TextFormatter("delivery").format(said))
        assert "CANARY" not in lines[0]
        assert "type=ValueError" in lines[0]
        assert "test_logs.py" in lines[0]
        assert "code=destination-refused" in lines[1]


@pytest.mark.parametrize(
    ("name", "wrong"), [("AXIOM_LOG_LEVEL", "loud"), ("AXIOM_LOG_FORMAT", "xml")]
)
def test_a_setting_that_is_none_is_named(name: str, wrong: str) -> None:
    logs.check_settings({"AXIOM_LOG_LEVEL": "Debug", "AXIOM_LOG_FORMAT": ""})
    with pytest.raises(ValueError, match=name):
        logs.check_settings({name: wrong})


class TestConfigured:
    def run(self, stderr: int, **environ: str) -> None:
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=ROOT,
            check=True,
            stderr=stderr,
            env={"PATH": os.environ["PATH"], **environ},
        )

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            ({}, ["warning: refused  code=not-dicom"]),
            ({"AXIOM_LOG_LEVEL": "info"}, ["listening", "warning: refused  code=not-dicom"]),
            ({"AXIOM_LOG_LEVEL": "error"}, []),
        ],
    )
    def test_a_terminal_gets_words_about_what_is_wrong(
        self, environ: dict[str, str], said: list[str]
    ) -> None:
        ours, theirs = pty.openpty()
        try:
            self.run(theirs, **environ)
            os.close(theirs)
            text = ""
            while True:
                try:
                    piece = os.read(ours, 4096)
                except OSError:
                    break  # all is read
                if not piece:
                    break
                text += piece.decode()
        finally:
            os.close(ours)
        assert [line.partition("gateway  ")[2] for line in text.splitlines()] == said

    def test_others_get_json(self, tmp_path: Path) -> None:
        for environ, number in (({}, 2), ({"AXIOM_LOG_LEVEL": "warning"}, 1)):
            with (tmp_path / "log").open("wb") as file:
                self.run(file.fileno(), **environ)
            lines = (tmp_path / "log").read_text().splitlines()
            assert [json.loads(line)["part"] for line in lines] == ["gateway"] * number

    def test_only_our_own_parts_say_more(self, tmp_path: Path) -> None:
        """A library's inner life holds statements and URLs, and those hold Values."""
        with (tmp_path / "log").open("wb") as file:
            self.run(file.fileno(), AXIOM_LOG_LEVEL="debug")
        lines = (tmp_path / "log").read_text().splitlines()
        said = [json.loads(line)["message"] for line in lines]
        assert said == ["listening", "refused", "deciding"]

    def test_the_format_is_chosen(self, tmp_path: Path) -> None:
        with (tmp_path / "log").open("wb") as file:
            self.run(file.fileno(), AXIOM_LOG_FORMAT="text")
        assert (tmp_path / "log").read_text().endswith("warning: refused  code=not-dicom\n")
