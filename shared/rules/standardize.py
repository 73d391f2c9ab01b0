"""The action that gives Attributes standard terms, as a standardizer of the configuration says.

A standardizer may take its time, so rules do not wait for one: without its answer the evaluation
ends with an Ask, and begins anew, from the first rule, once the answer is among the Facts. So the
rules after the action see the standard terms, as they see every other change.
"""

from __future__ import annotations

from msgspec import Struct

from shared.dicom.changes import Change
from shared.dicom.paths import AttributePath
from shared.rules.actions import Work


class AnswerNeeded(Exception):
    """A `standardize` action has no answer yet. `changes` are those of the edit at hand."""

    def __init__(self, standardizer: str, changes: tuple[Change, ...]) -> None:
        super().__init__(standardizer, changes)
        self.standardizer, self.changes = standardizer, changes


class Standardize(Struct, frozen=True):
    """Set what the standardizer says; hold the Instance if a person has to decide first."""

    standardizer: str

    def apply(self, work: Work) -> None:
        """Raises: AnswerNeeded if the caller can ask the standardizer, and has not; ActionError."""
        answer = work.facts.standardized.get(self.standardizer)
        if answer is None:
            if work.facts.asks:
                raise AnswerNeeded(self.standardizer, work.edit.changes())
            return
        if answer.hold and not work.facts.released:
            work.effects.hold = answer.hold
        for path, values in answer.edits:
            work.set(AttributePath.parse(path), values)
