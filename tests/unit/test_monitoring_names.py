"""What Google Cloud's alarms and dashboard count in log lines is what the code says in them."""

from __future__ import annotations

import json
import re

from tests.conftest import ROOT

_FOLDER = ROOT / "infra" / "monitoring"
_TERRAFORM = (_FOLDER / "main.tf").read_text()


def _code() -> str:
    folders = ("shared", "scp_gateway", "functions", "infra")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return "\n".join(path.read_text() for path in files)


def test_messages_that_are_counted_are_said() -> None:
    code = _code()
    messages = re.findall(r'jsonPayload\.message[=:]\\"(.*?)\\"', _TERRAFORM)
    assert messages
    assert [text for text in messages if f'"{text}"' not in code] == []


def test_fields_that_are_counted_are_said() -> None:
    code = _code()
    fields = set(re.findall(r"jsonPayload\.(\w+)", _TERRAFORM)) - {"message", "logger"}
    assert fields
    assert {name for name in fields if f'"{name}":' not in code} == set()


def test_loggers_that_are_counted_are_modules() -> None:
    loggers = re.findall(r'jsonPayload\.logger=\\"(.*?)\\"', _TERRAFORM)
    assert loggers
    assert [one for one in loggers if not (ROOT / f"{one.replace('.', '/')}.py").exists()] == []


def test_the_dashboard_names_metrics_that_terraform_makes() -> None:
    dashboard = (_FOLDER / "dashboard.json").read_text()
    json.loads(dashboard)
    counted = set(re.findall(r"logging\.googleapis\.com/user/\$\{(\w+)\}", dashboard))
    made = set(re.findall(r'resource "google_logging_metric" "(\w+)"', _TERRAFORM))
    assert counted
    assert counted <= made
