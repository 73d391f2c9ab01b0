"""What all tests share: the corpus, free ports, the running system, and an account of skips.

A test that is skipped tests nothing, so none is skipped unseen: the reasons are printed, and where
the environment says CI=true a reason that tests/expected_skips.txt does not list fails the run.
"""

from __future__ import annotations

import fnmatch
import gc
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from tests.firestore_indexes import queries_noted
from tests.running import RunningAxiom
from tests.schemas import remember_schemas

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"

StartAxiom = Callable[..., RunningAxiom]

_EXPECTED_SKIPS = Path(__file__).with_name("expected_skips.txt")
_REPORT = pytest.StashKey[pytest.TestReport]()


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest import the peers first: modules that name them as a plugin import them too."""
    config.pluginmanager.import_plugin("tests.peers")
    config.pluginmanager.import_plugin("tests.contract_counts")


def pytest_collection_finish() -> None:
    """Have the garbage collector leave out what was imported and collected: it stays to the end.

    Otherwise it goes through all of it again with every second application that a test builds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real test data beside the repository; read-only."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not beside the repository")
    return CORPUS


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Loopback ports that nothing listens on now, another one at each call."""
    from tests.peers import free_port  # not before pytest did

    return free_port


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An AXIOM_HOME that does not exist yet."""
    return tmp_path / "home"


@pytest.fixture(scope="session", autouse=True)
def remembered_schemas() -> Iterator[None]:
    """Make the schema of each model once in a session."""
    with pytest.MonkeyPatch.context() as patch:
        remember_schemas(patch)
        yield


@pytest.fixture(autouse=True)
def answerable_queries() -> Iterator[None]:
    """Fail a test whose code asks what Firestore would refuse for want of an index."""
    with pytest.MonkeyPatch.context() as patch, queries_noted(patch) as noted:
        yield
    unanswered = sorted(str(query) for query in noted if not query.is_answered)
    assert not unanswered, f"infra/firestore/indexes.json needs {'; '.join(unanswered)}"


@pytest.fixture(autouse=True)
def closed_stores() -> Iterator[None]:
    """Close the files of every store and bus that a test opens: a worker runs thousands of tests.

    From 1024 open files on, select(2) fails, which pynetdicom's acceptors in tests lean on.
    """
    opened: list[SqliteDocumentStore | SqliteMessageBus] = []

    def noting(initialise: Callable[..., None]) -> Callable[..., None]:
        def initialise_and_note(self: Any, *arguments: Any, **named: Any) -> None:
            opened.append(self)
            initialise(self, *arguments, **named)

        return initialise_and_note

    with pytest.MonkeyPatch.context() as patch:
        for adapter in (SqliteDocumentStore, SqliteMessageBus):
            patch.setattr(adapter, "__init__", noting(adapter.__init__))
        yield
    for store in opened:
        with suppress(AttributeError):  # whose __init__ failed
            store.close()


@pytest.fixture
def axiom_up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartAxiom]:
    """Start the real system, as often as wanted: `axiom_up(AXIOM_AE_TITLE="OTHER")`.

    Each has its own home; it is stopped at the end, and shows its log if the test failed.
    """
    started: list[RunningAxiom] = []
    with ExitStack() as stack:

        def start(home: Path | None = None, **settings: str) -> RunningAxiom:
            running = RunningAxiom(home or tmp_path / f"home{len(started)}", **settings)
            started.append(running)
            return stack.enter_context(running)

        yield start
        report = request.node.stash.get(_REPORT, None)
        if report is not None and report.failed:
            for running in started:
                print(f"---- the log of {running.home}\n{running.log()[-20_000:]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know how their test went."""
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Account for skips, where a person looks."""
    unexpected = _unexpected_skips(terminalreporter)
    if unexpected:
        terminalreporter.section("skips that nobody expects")
        for reason, count in unexpected.items():
            terminalreporter.write_line(f"{count} x {reason}")
        if not _is_ci():
            terminalreporter.write_line("(with CI=true they fail the run)")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run of a continuous integration that skipped what it should have tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    is_worker = hasattr(session.config, "workerinput")
    if _is_ci() and reporter is not None and not is_worker and _unexpected_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unexpected_skips(reporter: TerminalReporter) -> Counter[str]:
    reasons = Counter(_reason(report) for report in reporter.stats.get("skipped", ()))
    expected = _expected_reasons()
    return Counter(
        {
            reason: count
            for reason, count in reasons.items()
            if not any(fnmatch.fnmatchcase(reason, pattern) for pattern in expected)
        }
    )


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def _expected_reasons() -> list[str]:
    lines = _EXPECTED_SKIPS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")
