"""Modality worklists as configuration: where the scheduled procedure steps are that a listener
shows to modalities (PS3.4 Annex K).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from shared.config.crosswalks import Identifier, TableName
from shared.config.entity import Entity, Name, by_name, entities, path_below
from shared.config.peers import DimseCredentials
from shared.config.tls import PeerTls
from shared.dicom.ae_titles import checked_ae_title
from shared.dicom.paths import AttributePath
from shared.errors import Fault
from shared.rules.reading import nearest

# Who is examined has to be known of each row.
_OF_EACH: Final = "PatientID"


def _is_attribute(text: str) -> str:
    path = AttributePath.parse(text)  # raises ValueError with the nearest right keyword
    if any(step.creator or step.item not in (None, 0) for step in path.steps):
        raise ValueError("a column gives one standard Attribute; Items are [0]")
    return text


AeTitle = Annotated[str, AfterValidator(checked_ae_title)]
Attribute = Annotated[str, AfterValidator(_is_attribute)]


class FolderWorklist(Entity):
    """A folder of `.wl` files, each a data set of one scheduled procedure step, as dcmtk's wlmscpfs
    keeps them. A relative `path` lies below AXIOM_HOME/worklists.
    """

    type: Literal["folder"]
    path: Annotated[
        str, Field(min_length=1), AfterValidator(partial(path_below, folder="worklists"))
    ]


class TableWorklist(Entity):
    """A table of a crosswalk source, one row for each scheduled procedure step."""

    type: Literal["table"]
    # The name of a crosswalk source; of a CSV file no table.
    source: Name
    table: TableName | None = None
    # By Attribute, as paths name it: ScheduledProcedureStepSequence[0].Modality.
    columns: Annotated[dict[Attribute, Identifier], Field(max_length=200)]
    # More rows than this are not shown: a view with what is still to be done is wanted.
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    # How long what was read answers, for modalities ask often and together.
    keep_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 20.0

    @model_validator(mode="after")
    def _says_who_is_examined(self) -> TableWorklist:
        names = [str(AttributePath.parse(name)) for name in self.columns]
        if _OF_EACH not in names:
            raise ValueError(f"columns: {_OF_EACH} is missing")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"columns: {twice} is there twice")
        sequences = {name.rpartition("[0].")[0] for name in names}
        above = next((name for name in names if name in sequences), None)
        if above is not None:
            raise ValueError(f"columns: {above} is a Sequence; name what is in its Item")
        return self


class DimseWorklist(Entity):
    """Another Modality Worklist SCP, which is asked each time."""

    type: Literal["dimse"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: AeTitle = "AXIOM"
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    # In the clear without it.
    tls: PeerTls | None = None
    # Who we say that we are, to peers that ask.
    credentials: DimseCredentials = DimseCredentials()


AnyWorklist = FolderWorklist | TableWorklist | DimseWorklist
Worklist = Annotated[AnyWorklist, Field(discriminator="type")]


def worklist_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between worklists, their tables and the listeners that show them."""
    sources = by_name(document, "crosswalk_sources")
    for i, worklist in enumerate(entities(document, "worklists")):
        source = worklist.get("source")
        if worklist.get("type") != "table" or not isinstance(source, str):
            continue
        path = f"worklists[{i}]"
        if source not in sources:
            hint = nearest(source, sources)
            yield Fault(f"{path}.source", f"there is no crosswalk source {source[:100]!r}", hint)
        elif sources[source].get("type") != "csv":
            if worklist.get("table") is None:
                yield Fault(f"{path}.table", "is missing")
        elif worklist.get("table") is not None:
            yield Fault(f"{path}.table", "a csv source has none: it is one table")
    names = by_name(document, "worklists")
    for i, listener in enumerate(entities(document, "listeners")):
        name = listener.get("worklist")
        if isinstance(name, str) and name not in names:
            words = f"there is no worklist {name[:100]!r}"
            yield Fault(f"listeners[{i}].worklist", words, nearest(name, names))
