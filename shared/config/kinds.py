"""The kinds of named entities that the configuration has, as a table.

To add a kind: write its model (a subclass of `entity.Entity`, or a union of such told apart by
`type`), give `entities.Configuration` a field of it, and add a row to `KINDS`. The service, the
HTTP API with its OpenAPI document, the command line's files and the export follow the table; what
is left to write is an example in docs/configuration.md, which a test posts as it stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from shared.config import (
    crosswalks,
    entities,
    query_retrieve,
    rulesets,
    schedules,
    sources,
    standardizers,
    worklists,
)
from shared.errors import Fault


def _no_faults(_: Mapping[str, Any]) -> Iterable[Fault]:
    return ()


class Kind(Struct, frozen=True):
    """What holds for all entities of one kind."""

    name: str  # the field of `entities.Configuration`
    noun: str  # what a person calls one
    title: str  # what the OpenAPI document calls one
    schema: Any  # one, as `entities.Configuration` says it: a model, or an annotated union
    paths: tuple[str, ...]  # of /api/v1/config that they are reachable at
    has_types: bool = False  # `type` decides what an entity may say
    # How names of secrets begin that its `credentials` or `tls` gave in clear; None if it has none.
    secrets: str | None = None
    # What is wrong between its entities and others; gets the whole document, checked or not.
    faults: Callable[[Mapping[str, Any]], Iterable[Fault]] = _no_faults
    # Whether its `host` and `..._url` fields are where we connect to.
    is_remote: bool = True
    # Those of `paths` that show entities of one type alone, which need not be said there.
    typed_paths: Mapping[str, str] = field(default_factory=dict)


KINDS: tuple[Kind, ...] = (
    Kind(
        "listeners",
        "listener",
        "Listener",
        entities.Listener,
        ("listeners", "dimse-listeners"),
        secrets="listener",
        faults=query_retrieve.query_retrieve_faults,
        is_remote=False,
    ),
    Kind(
        "sources",
        "source",
        "Source",
        sources.Source,
        ("sources", "dimse-qr", "dicomweb", "google-healthcare", "buckets", "folders"),
        has_types=True,
        secrets="source",
        faults=sources.source_faults,
        typed_paths={
            "dimse-qr": "dimse_qr",
            "dicomweb": "dicomweb",
            "google-healthcare": "google_healthcare",
            "buckets": "bucket",
            "folders": "folder",
        },
    ),
    Kind(
        "destinations",
        "destination",
        "Destination",
        entities.Destination,
        ("destinations", "storage-backends"),
        has_types=True,
        secrets="destination",
        faults=entities.destination_faults,
    ),
    Kind(
        "schedules",
        "schedule",
        "NamedSchedule",
        schedules.NamedSchedule,
        ("schedules",),
        is_remote=False,
    ),
    Kind(
        "rulesets",
        "ruleset",
        "Ruleset",
        dict[str, Any],
        ("rulesets",),
        faults=rulesets.ruleset_faults,
        is_remote=False,
    ),
    Kind(
        "crosswalk_sources",
        "crosswalk source",
        "CrosswalkSource",
        crosswalks.CrosswalkSource,
        ("crosswalk-sources",),
        has_types=True,
        secrets="crosswalk-source",
    ),
    Kind(
        "crosswalk_maps",
        "crosswalk map",
        "CrosswalkMap",
        crosswalks.CrosswalkMap,
        ("crosswalk-maps",),
        faults=crosswalks.map_faults,
        is_remote=False,
    ),
    Kind(
        "vocabularies",
        "vocabulary",
        "Vocabulary",
        standardizers.Vocabulary,
        ("vocabularies",),
        faults=standardizers.vocabulary_faults,
        is_remote=False,
    ),
    Kind(
        "standardizers",
        "standardizer",
        "Standardizer",
        standardizers.Standardizer,
        ("standardizers",),
        faults=standardizers.standardizer_faults,
    ),
    Kind(
        "worklists",
        "worklist",
        "Worklist",
        worklists.Worklist,
        ("worklists",),
        has_types=True,
        secrets="worklist",
        faults=worklists.worklist_faults,
    ),
)

KIND_NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
