"""Schedules that rulesets share by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from shared.config.entity import Name, by_name
from shared.errors import InvalidConfigurationError
from shared.rules.reading import Faults
from shared.rules.schedules import Schedule, read_schedule


class NamedSchedule(BaseModel):
    """When something is in force: the form is that of a ruleset's own `schedule`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    timezone: str
    days: tuple[str, ...] | str | None = None
    start: str | None = None
    end: str | None = None
    dates_on: tuple[str, ...] | None = None
    dates_off: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _can_be_read(self) -> NamedSchedule:
        faults = Faults()
        self._read(faults)
        try:
            faults.raise_if_any()
        except InvalidConfigurationError as error:
            raise ValueError("; ".join(f"{f.path} {f.message}" for f in error.faults)) from None
        return self

    @property
    def schedule(self) -> Schedule:
        """What it says."""
        return self._read(Faults())

    def _read(self, faults: Faults) -> Schedule:
        document = self.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        return read_schedule(document, "", faults)


def readable(document: Mapping[str, Any]) -> dict[str, Schedule]:
    """By name the schedules of a configuration, of which anything may be wrong; those that cannot
    be read are there too, so that nobody is told that they are missing.
    """
    found: dict[str, Schedule] = {}
    for name, entity in by_name(document, "schedules").items():
        said = {key: value for key, value in entity.items() if key != "name"}
        found[name] = read_schedule(said, "", Faults())
    return found
