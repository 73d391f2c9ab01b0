"""The destinations of the current configuration, each built once and kept while unchanged."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from shared.config.entities import AnyDestination as DestinationEntity
from shared.config.entities import GroupDestination, SingleDestination
from shared.config.service import ConfigurationService
from shared.errors import DestinationMisconfiguredError
from shared.pipeline.destination_group import DestinationGroup
from shared.pipeline.destination_terms import on_its_terms
from shared.pipeline.turns import Turns
from shared.ports import Clock, Destination


class DestinationPool:
    """Destinations by name."""

    def __init__(
        self,
        configuration: ConfigurationService,
        create: Callable[[SingleDestination], Destination],
        clock: Clock,
        *,
        longest_wait_s: float = math.inf,
        turns: Turns | None = None,
    ) -> None:
        """`create` builds all of them but groups. Nobody waits longer than `longest_wait_s` for the
        turn that the rate limit of a destination gives. Without `turns` the queue sees to it how
        many are delivered at once.
        """
        self._configuration, self._create, self._clock = configuration, create, clock
        self._longest_wait_s, self._turns = longest_wait_s, turns
        self._lock = threading.Lock()
        self._built: dict[str, tuple[DestinationEntity, Destination]] = {}

    def get(self, name: str) -> Destination:
        """Raises: DestinationMisconfiguredError if there is none of that name, or it is off."""
        entity = self.entity(name)
        if not entity.enabled:
            raise DestinationMisconfiguredError(name, "the destination is not enabled")
        with self._lock:
            built = self._built.get(name)
            if built is not None and built[0] == entity:
                return built[1]
            destination = on_its_terms(
                DestinationGroup(entity, self.get, self._clock)
                if isinstance(entity, GroupDestination)
                else self._create(entity),
                entity,
                self._clock,
                longest_wait_s=self._longest_wait_s,
            )
            self._built[name] = (entity, destination)
        if built is not None:
            # A delivery under way through the old one fails as a lost connection does: again later.
            built[1].close()
        return destination

    def open(self, name: str, *, timeout_s: float) -> Destination:
        """One with connections of its own, enabled or not, which whoever asks for it closes.

        It waits at most `timeout_s` for each answer; members of a group wait as configured.
        Raises: DestinationMisconfiguredError if there is none of that name.
        """
        entity = self.entity(name)
        if isinstance(entity, GroupDestination):
            return DestinationGroup(entity, self.get, self._clock)
        shorter_s = min(entity.timeout_s, timeout_s)
        return self._create(entity.model_copy(update={"timeout_s": shorter_s}))

    def entity(self, name: str) -> DestinationEntity:
        """What is configured. Raises: DestinationMisconfiguredError if there is none."""
        entity = self._configuration.get().destination(name)
        if entity is None:
            raise DestinationMisconfiguredError(name, "there is no destination of this name")
        return entity

    def turn(self, name: str) -> AbstractContextManager[None]:
        """To be taken before anything is done to deliver there, and kept meanwhile.

        Raises, when it is entered: DestinationBusyError.
        """
        if self._turns is None:
            return nullcontext()
        return self._turns.turn(name, at_once=self.max_concurrency(name))

    def max_concurrency(self, name: str) -> int:
        """How many deliveries may run to it at once; 1 for one that is not configured."""
        entity = self._configuration.get().destination(name)
        return 1 if entity is None else entity.max_concurrency

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            for _, destination in self._built.values():
                destination.close()
            self._built.clear()
