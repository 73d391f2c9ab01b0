"""What a listener answers of Query/Retrieve (PS3.4 Annex C), and of which store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.config.entity import Name, by_name, entities
from shared.config.peers import DimsePeer
from shared.dicom.ae_titles import checked_ae_title
from shared.errors import Fault

# The types of sources and destinations that can be searched and retrieved from: by QIDO-RS and
# WADO-RS, or as a folder of ours.
STORE_TYPES: Final = ("dicomweb", "google_healthcare", "filesystem")


class QueryRetrieve(BaseModel):
    """The services of one listener, each of which may be switched off."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # The name of a source or destination of STORE_TYPES; of a source, if both have it.
    store: Name
    find: bool = True
    move: bool = True
    get: bool = True
    # The store matches names fuzzily, for who negotiates that (PS3.18 8.3.4.2); Google's does.
    fuzzy: bool = False
    # By AE Title; an AE Title that is not here may be that of a `dimse` destination.
    move_destinations: dict[Annotated[str, AfterValidator(checked_ae_title)], DimsePeer] = Field(
        default_factory=dict
    )


def query_retrieve_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between listeners and their stores; `document` may be anything."""
    stores = by_name(document, "destinations") | by_name(document, "sources")
    for i, listener in enumerate(entities(document, "listeners")):
        given = listener.get("query_retrieve")
        store = given.get("store") if isinstance(given, Mapping) else None
        if not isinstance(store, str):
            continue
        path = f"listeners[{i}].query_retrieve.store"
        if store not in stores:
            yield Fault(path, f"there is no source or destination {store!r}")
        elif (type_ := stores[store].get("type")) not in STORE_TYPES:
            yield Fault(path, f"{store!r} is of type {type_}, which is not searched")
