"""Measure what a standard term costs: a decision that is kept, one that is not, and the import."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.standardize.chain import Chain, Link
from shared.standardize.embedded import EmbeddedStandardizer
from shared.standardize.evaluation import read_labelled
from shared.standardize.kept import KeptDecisions
from shared.standardize.proposals import Question
from shared.times import timestamp

_ROOT: Final = Path(__file__).resolve().parents[2]
_EXAMPLES: Final = _ROOT / "docs" / "standardize" / "example.csv"
_IMPORT: Final = (
    "import time; start = time.process_time(); import shared.standardize.embedded; "
    "print(time.process_time() - start)"
)
_IMPORTS: Final = 5
_MAX_ROUNDS: Final = 20


def run(rounds: int) -> dict[str, Any]:
    """Medians in milliseconds: of questions that were asked before, in memory and in the store, and
    of questions that nobody has asked; and the CPU seconds that the import takes.
    """
    questions = _questions(min(rounds, _MAX_ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        documents = SqliteDocumentStore(Path(folder) / "documents.db")
        chain = Chain([Link(EmbeddedStandardizer())])
        chain.decide(questions[0])  # reads the vocabularies
        bare = _median_ms(chain.decide, questions)
        first = KeptDecisions(chain, documents, _now)
        not_kept = _median_ms(first.decide, questions)
        in_memory = _median_ms(first.decide, questions)
        in_store = _median_ms(KeptDecisions(chain, documents, _now).decide, questions)
    return {
        "questions": len(questions),
        "kept_ms": in_memory,
        "kept_in_store_ms": in_store,
        "not_kept_ms": bare,
        "not_kept_and_stored_ms": not_kept,
        "import_cpu_s": _import_cpu_s(),
        "not_kept_by_kept": bare / in_memory,
    }


def _now() -> str:
    return timestamp(datetime.now(UTC))


def _questions(rounds: int) -> list[Question]:
    """Questions like those of a site, each another one, so that no cache of words helps."""
    labelled = read_labelled(_EXAMPLES.read_text(encoding="utf-8"))
    return [
        Question(
            one.question.attribute,
            one.question.raw_value,
            {
                **one.question.context,
                "SeriesDescription": f"{one.question.context['SeriesDescription']} s{number}",
                "StudyDescription": f"{one.question.context['StudyDescription']} {number} t",
            },
        )
        for number in range(max(1, rounds))
        for one in labelled
    ]


def _median_ms(decide: Any, questions: list[Question]) -> float:
    times = []
    for question in questions:
        start = time.perf_counter()
        decide(question)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def _import_cpu_s() -> float:
    """The least of several: what else runs on the machine only adds."""
    times = []
    for _ in range(_IMPORTS):
        ran = subprocess.run(  # noqa: S603 (our own interpreter and program)
            [sys.executable, "-c", _IMPORT], check=True, capture_output=True, cwd=_ROOT
        )
        times.append(float(ran.stdout))
    return min(times)
