"""The rulesets of the configuration, compiled once for each version."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shared.config.entities import Configuration
from shared.config.service import ConfigurationService
from shared.dicom.header import Header
from shared.errors import InvalidConfigurationError, RulesUnavailableError
from shared.rules import Facts, Program, Refusal, RuleSet, compile_rulesets, parse_ruleset
from shared.rules.crosswalk import CrosswalkLookup
from shared.rules.ruleset import Mode, Stage
from shared.rules.schedules import Schedule


class Shadow(Struct, frozen=True):
    """A ruleset in shadow mode: what all rulesets would be if it were live.

    `edition` differs for different documents of the ruleset.
    """

    name: str
    edition: str
    program: Program


class _Compiled(Struct, frozen=True):
    version: int
    live: Program
    shadows: tuple[Shadow, ...]


class RuleBook:
    """The rulesets of the current configuration, and how any others are compiled here."""

    def __init__(
        self,
        configuration: ConfigurationService,
        key: Callable[[], bytes],
        crosswalk: CrosswalkLookup,
    ) -> None:
        """`key` reads the key of keyed actions; it is asked when there are rulesets."""
        self._configuration, self._key = configuration, key
        self._crosswalk = crosswalk
        self._lock = threading.Lock()
        self._compiled: _Compiled | None = None
        self._reception: tuple[int, Program | None] | None = None

    def program(self) -> tuple[int, Program]:
        """The configuration's version and what its live rulesets compile to."""
        compiled = self._current()
        return compiled.version, compiled.live

    def shadows(self) -> tuple[Shadow, ...]:
        """One for each enabled ruleset in shadow mode."""
        return self._current().shadows

    def refusal(self, header: Header, facts: Facts) -> Refusal | None:
        """What the rulesets of the stage `reception` say of an Instance that is being received.

        Raises: RulesUnavailableError if they cannot be read.
        """
        version, configuration = self._configuration.current()
        with self._lock:
            if self._reception is None or self._reception[0] != version:
                self._reception = (version, self._reception_of(configuration))
            program = self._reception[1]
        return None if program is None else program.refusal(header, facts)

    def read(self, configuration: Configuration) -> list[RuleSet]:
        """All its rulesets. Raises: InvalidConfigurationError."""
        maps = {one.name: one.outline for one in configuration.crosswalk_maps}
        schedules = _schedules(configuration)
        return [
            parse_ruleset(document, crosswalks=maps, schedules=schedules)
            for document in configuration.rulesets
        ]

    def read_candidate(self, document: Mapping[str, Any]) -> RuleSet:
        """A ruleset that may go live here. Raises: InvalidConfigurationError with every fault."""
        configuration = self._configuration.get()
        return parse_ruleset(
            document,
            destinations=[destination.name for destination in configuration.destinations],
            crosswalks={one.name: one.outline for one in configuration.crosswalk_maps},
            standardizers=[one.name for one in configuration.standardizers],
            schedules=_schedules(configuration),
        )

    def compile(self, rulesets: Sequence[RuleSet]) -> Program:
        """With the key and the crosswalks of this system; those in shadow mode are left out.

        Raises: InvalidConfigurationError.
        """
        live = [ruleset for ruleset in rulesets if ruleset.mode is Mode.LIVE]
        key = self._key() if live else b""
        return compile_rulesets(live, key=key, crosswalk=self._crosswalk, study_rules=True)

    def with_candidate(self, rulesets: Sequence[RuleSet], candidate: RuleSet) -> Program:
        """What `rulesets` would be if `candidate` were live: in the place of the one that it
        replaces, and by its name, or that has its name, else beside them.

        Raises: InvalidConfigurationError.
        """
        gone = {candidate.name, candidate.replaces}
        others = [ruleset for ruleset in rulesets if ruleset.name not in gone]
        name = candidate.replaces or candidate.name
        live = replace(candidate, name=name, replaces="", mode=Mode.LIVE, enabled=True)
        return self.compile([*others, live])

    def _current(self) -> _Compiled:
        version, configuration = self._configuration.current()
        with self._lock:
            if self._compiled is None or self._compiled.version != version:
                rulesets = self.read(configuration)
                shadows = tuple(
                    Shadow(ruleset.name, _edition(document), self.with_candidate(rulesets, ruleset))
                    for ruleset, document in zip(rulesets, configuration.rulesets, strict=True)
                    if ruleset.mode is Mode.SHADOW and ruleset.enabled
                )
                self._compiled = _Compiled(version, self.compile(rulesets), shadows)
            return self._compiled

    def _reception_of(self, configuration: Configuration) -> Program | None:
        documents = [one for one in configuration.rulesets if _asks_at_reception(one)]
        if not documents:
            return None
        try:
            schedules = _schedules(configuration)
            return self.compile([parse_ruleset(one, schedules=schedules) for one in documents])
        except InvalidConfigurationError:
            # Rules of an older version may be wrong by now. To take what they would refuse would be
            # a guess, and what is refused for good is lost with many senders.
            raise RulesUnavailableError(len(documents)) from None


def _edition(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _asks_at_reception(document: Mapping[str, Any]) -> bool:
    is_live = document.get("enabled", True) is True and document.get("mode", "live") == Mode.LIVE
    return is_live and document.get("stage") == Stage.RECEPTION


def _schedules(configuration: Configuration) -> dict[str, Schedule]:
    return {one.name: one.schedule for one in configuration.schedules}
