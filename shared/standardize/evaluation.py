"""Score a provider on labelled series.

The CSV has the columns id, attribute, modality, body_part_examined, study_description,
series_description, protocol_name, raw_value, expected, acceptable (separated by `|`) and kind.
`expected` UNDETERMINED, or nothing, means that the answer must be "not known".
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import Fault, InvalidConfigurationError, TransientError
from shared.standardize.proposals import Evidence, Proposal, Question, Standardizer

UNDETERMINED = "UNDETERMINED"
KEEP = "keep"
ABSTAIN = "abstain"

_CONTEXT = {
    "modality": "Modality",
    "body_part_examined": "BodyPartExamined",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "protocol_name": "ProtocolName",
}
_NEEDED = ("attribute", "raw_value", "expected", "kind")


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """One row: a question, and the answers that are right."""

    row_id: str
    question: Question
    expected: str
    acceptable: frozenset[str]
    kind: str

    @property
    def is_decidable(self) -> bool:
        return self.expected != UNDETERMINED

    def is_right(self, answer: str | None) -> bool:
        answer = answer or UNDETERMINED
        return answer == self.expected or answer in self.acceptable


@dataclass(frozen=True, slots=True)
class Outcome:
    """A labelled series and what the provider proposed; `answer` is None if not sure enough, or if
    the provider `failed`, for this reason.
    """

    series: LabelledSeries
    proposal: Proposal
    answer: str | None
    failed: str = ""

    @property
    def is_right(self) -> bool:
        return self.series.is_right(self.answer)

    @property
    def changes_a_right_value(self) -> bool:
        """An answer of "not known" leaves the Value as it is."""
        raw = self.series.question.raw_value
        return self.series.kind == KEEP and self.answer not in (None, raw)

    @property
    def is_guess(self) -> bool:
        return self.series.kind == ABSTAIN and self.answer is not None and not self.is_right


@dataclass(frozen=True, slots=True)
class Score:
    """All outcomes, and the counts that are read off them."""

    outcomes: tuple[Outcome, ...]

    def counts(self) -> dict[str, int]:
        decidable = [one for one in self.outcomes if one.series.is_decidable]
        return {
            "rows": len(self.outcomes),
            "decidable": len(decidable),
            "right": sum(one.is_right for one in decidable),
            "keep": sum(one.series.kind == KEEP for one in self.outcomes),
            "keep_changed": sum(one.changes_a_right_value for one in self.outcomes),
            "abstain": sum(one.series.kind == ABSTAIN for one in self.outcomes),
            "abstain_guessed": sum(one.is_guess for one in self.outcomes),
            "failed": sum(bool(one.failed) for one in self.outcomes),
        }

    def by_kind(self) -> dict[str, dict[str, int]]:
        rows = Counter(one.series.kind for one in self.outcomes)
        right = Counter(one.series.kind for one in self.outcomes if one.is_right)
        return {kind: {"rows": rows[kind], "right": right[kind]} for kind in sorted(rows)}

    def wrong(self) -> list[Outcome]:
        return [one for one in self.outcomes if not one.is_right]


def read_labelled(text: str) -> list[LabelledSeries]:
    """Raises: InvalidConfigurationError that names the lines at fault."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    series: list[LabelledSeries] = []
    faults: list[Fault] = []
    try:
        missing = [one for one in _NEEDED if one not in (reader.fieldnames or ())]
        if missing:
            raise InvalidConfigurationError(
                *(Fault("line 1", f"no column named {one}") for one in missing)
            )
        for row in reader:
            empty = [one for one in ("attribute", "kind") if not row[one]]
            faults += (Fault(f"line {reader.line_num}", f"{one} is empty") for one in empty)
            if not empty:
                series.append(_labelled(row, len(series) + 1))
    except csv.Error as error:
        faults.append(Fault(f"line {reader.line_num}", str(error)))
    if not series and not faults:
        faults.append(Fault("line 1", "no rows"))
    if faults:
        raise InvalidConfigurationError(*faults)
    return series


def _labelled(row: Mapping[str, str | None], number: int) -> LabelledSeries:
    context = {keyword: row.get(column) or "" for column, keyword in _CONTEXT.items()}
    question = Question(row["attribute"] or "", row["raw_value"] or "", context)
    acceptable = frozenset(filter(None, (row.get("acceptable") or "").split("|")))
    row_id = row.get("id") or str(number)
    expected = row["expected"] or UNDETERMINED
    return LabelledSeries(row_id, question, expected, acceptable, row["kind"] or "")


def evaluate(provider: Standardizer, series: list[LabelledSeries], *, threshold: float) -> Score:
    """Ask about every series; a proposal below `threshold`, no term, or no answer at all counts as
    "not known".

    Raises: UnknownVocabularyError.
    """
    outcomes = []
    for one in series:
        try:
            proposal = provider.propose(one.question)
        except TransientError as error:
            reason = str(error)
            nothing = Proposal(None, 0.0, (Evidence("", "", reason),), provider.name, "", "", "")
            outcomes.append(Outcome(one, nothing, None, reason))
            continue
        is_sure = proposal.value is not None and proposal.confidence >= threshold
        outcomes.append(Outcome(one, proposal, proposal.value if is_sure else None))
    return Score(tuple(outcomes))
