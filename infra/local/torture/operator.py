"""A person who works on what waits, by lot, while everything breaks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import requests

from infra.local.torture.instances import PACS
from infra.local.torture.system import System

_WAITING = ("held", "quarantined")
_PAGE = 20
_MOST_AT_ONCE = 5


class Operator:
    """Releases and discards Instances, and retries exceptions. Used from one thread."""

    def __init__(self, system: System, random_: random.Random) -> None:
        self._system, self._random = system, random_
        # Receipts of what was to be discarded, whatever the answer was: it may have been done.
        self.discarded: set[str] = set()
        self.done = 0

    def act(self) -> None:
        """Do a few things about some Instances; what fails is left."""
        for _ in range(self._random.randint(1, _MOST_AT_ONCE)):
            try:
                if self._random.random() < 1 / 3:
                    self._retry()
                else:
                    self._decide()
            except (requests.RequestException, ValueError):
                return

    def _decide(self) -> None:
        state = self._random.choice(_WAITING)
        waiting = self._items(f"/api/v1/instances?state={state}&limit={_PAGE}")
        if not waiting:
            return
        receipt_id = str(self._random.choice(waiting)["receipt_id"])
        path = f"/api/v1/instances/{receipt_id}"
        if self._random.random() < 0.5:
            self._post(f"{path}/release")
            return
        self.discarded.add(receipt_id)
        self._post(f"{path}/discard", {"reason": "as the torture wants"})

    def _retry(self) -> None:
        entries = self._items(f"/api/v1/exceptions?status=open&destination={PACS}&limit={_PAGE}")
        if entries:
            self._post(f"/api/v1/exceptions/{self._random.choice(entries)['id']}/retry")

    def _items(self, path: str) -> list[Mapping[str, Any]]:
        answer = self._system.request("GET", path)
        answer.raise_for_status()
        found: list[Mapping[str, Any]] = answer.json()["items"]
        return found

    def _post(self, path: str, document: Mapping[str, Any] | None = None) -> None:
        self._system.request("POST", path, json=document).raise_for_status()
        self.done += 1
