"""A DICOMweb store as an archive that is queried and retrieved from (PS3.4 Annex C).

QIDO-RS narrows a search as far as the store is known to match; all of it is matched once more here,
so that a store that matches less than C-FIND demands finds no more than it should.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.sources import qido
from shared.adapters.sources.http import SourceServer
from shared.config.entities import DicomwebDestination, GoogleHealthcareDestination
from shared.config.sources import DicomwebSource, GoogleHealthcareSource
from shared.dicom.matching import (
    is_range,
    is_wild_card,
    judged_alone,
    matches,
    matches_span,
    spans,
    takes_wild_cards,
)
from shared.dicom.query import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Found,
    Key,
    Level,
    Match,
    Query,
    texts,
)
from shared.ports import Clock, FoundInstance, Retrieval, Retrieved, SecretStore

if TYPE_CHECKING:
    from shared.adapters.destinations.authorization import Authorization

Store = DicomwebSource | GoogleHealthcareSource | DicomwebDestination | GoogleHealthcareDestination

_PAGE: Final = 1000
# More keys than this are asked for as all that there is: a URL has its limits.
_MOST_INCLUDED: Final = 60
_LONGEST_VALUE: Final = 256
# What a URL has as it is.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~*?-]*")
_PATHS: Final = {
    Level.PATIENT: ("/studies", STUDY_INSTANCE_UID),
    Level.STUDY: ("/studies", STUDY_INSTANCE_UID),
    Level.SERIES: ("/series", SERIES_INSTANCE_UID),
    Level.IMAGE: ("/instances", SOP_INSTANCE_UID),
}
_UIDS: Final = (SOP_INSTANCE_UID, SERIES_INSTANCE_UID, STUDY_INSTANCE_UID)

_MODALITY, _MODALITIES_IN_STUDY = "00080060", "00080061"
_STUDIES_OF_PATIENT, _SERIES_OF_PATIENT = "00201200", "00201202"
_INSTANCES_OF_PATIENT = "00201204"
_SERIES_OF_STUDY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES = "00201206", "00201208", "00201209"
# What an archive counts, by what is counted of one Study.
_OF_PATIENT: Final = {
    _SERIES_OF_PATIENT: _SERIES_OF_STUDY,
    _INSTANCES_OF_PATIENT: _INSTANCES_OF_STUDY,
}
_COUNTED: Final = frozenset(
    {_STUDIES_OF_PATIENT, *_OF_PATIENT, *_OF_PATIENT.values(), _INSTANCES_OF_SERIES}
)
# What every server matches and shows if it is there (PS3.18 10.6.3.3): absent is empty.
_OF_EVERY_STUDY: Final = frozenset(
    {"00080020", "00080030", "00080050", "00100010", PATIENT_ID, "00200010", STUDY_INSTANCE_UID}
)
_ALWAYS_SHOWN: Final = {
    Level.PATIENT: _OF_EVERY_STUDY,
    Level.STUDY: _OF_EVERY_STUDY,
    Level.SERIES: frozenset({_MODALITY, "00200011", SERIES_INSTANCE_UID}),
    Level.IMAGE: frozenset({"00200013", SOP_INSTANCE_UID}),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server's QIDO-RS is asked to match; `None` is whatever there is."""

    keys: frozenset[str] | None = None
    ranges: frozenset[str] | None = None
    wild_cards: bool = True


ANY_SERVER: Final = Dialect()
# The conformance statement of the Cloud Healthcare API: equality, and a range of Study Date alone.
GOOGLE: Final = Dialect(
    keys=frozenset(
        {STUDY_INSTANCE_UID, "00100010", PATIENT_ID, "00080050", "00080090", "00080020"}
        | {SERIES_INSTANCE_UID, _MODALITY, SOP_INSTANCE_UID}
    ),
    ranges=frozenset({"00080020"}),
    wild_cards=False,
)


class Archive:
    """What a store has, by the model of C-FIND. Thread-safe.

    Every method raises, also while what it gives is iterated over: SourceUnavailableError and its
    kin.
    """

    def __init__(self, server: SourceServer, clock: Clock, dialect: Dialect = ANY_SERVER) -> None:
        from shared.adapters.sources.dicomweb import DicomwebReader

        self._server, self._dialect = server, dialect
        self._reader = DicomwebReader(
            server, clock, level="STUDY", query_params={}, page_size=_PAGE
        )

    def find(self, query: Query) -> Iterator[Match | None]:
        """What fits all keys; None for what the store shows and does not fit, or while it is still
        asked, so that whoever waits can have a look around.
        """
        if query.level is Level.PATIENT:
            yield from self._patients(query)
            return
        for found in self._search(query, _included(query)):
            yield self._match(query, found)

    def instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]:
        """Study Instance UID and Instance of all that is to be retrieved; None as of `find`."""
        keys = tuple(
            key for key in query.keys if key.tag in (*_UIDS, PATIENT_ID) and not key.is_universal
        )
        if query.uids(PATIENT_ID) and not query.uids(STUDY_INSTANCE_UID):
            # Not every server looks for Instances by what is the Patient's.
            for study in self._search(Query(Level.STUDY, keys), ()):
                uid = qido.uid(study, STUDY_INSTANCE_UID)
                one = Key(STUDY_INSTANCE_UID, "UI", (uid,))
                if uid and matches(_of(keys, PATIENT_ID), study) is not False:
                    yield from self._instances(Query(Level.IMAGE, (one,)))
            return
        # The Study's UID says whose it is.
        named = tuple(key for key in keys if key.tag != PATIENT_ID)
        yield from self._instances(Query(Level.IMAGE, named))

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        """As of SourceReader: each Instance in the Transfer Syntax that it is stored in."""
        return self._reader.retrieve(wanted)

    def stop(self) -> None:
        """From another thread: have what is under way end with an error at once."""
        self._server.interrupt()

    def close(self) -> None:
        """Release connections."""
        self._server.close()

    # ---- inside

    def _instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]:
        for found in self._search(query, ()):
            study = qido.uid(found, STUDY_INSTANCE_UID)
            instance = FoundInstance(
                qido.uid(found, SOP_INSTANCE_UID),
                qido.uid(found, SERIES_INSTANCE_UID),
                qido.uid(found, qido.SOP_CLASS_UID),
            )
            is_wanted = all(matches(key, found) for key in query.keys)
            is_whole = study and instance.uid and instance.series_instance_uid
            yield (study, instance) if is_wanted and is_whole else None

    def _search(self, query: Query, included: Iterable[str]) -> Iterator[Found]:
        path, unique = _PATHS[query.level]
        fields = [("includefield", tag) for tag in included]
        if query.is_fuzzy:
            fields.append(("fuzzymatching", "true"))
        seen: set[str] = set()
        for narrowed in _narrowed(query, self._dialect):
            found = qido.pages(
                self._server,
                path,
                [*narrowed, *fields],
                unique,
                page_size=_PAGE,
                if_none=self._reader.check,
            )
            for one in found:
                uid = qido.text(one, unique)
                if uid not in seen:
                    seen.add(uid)
                    yield one

    def _match(self, query: Query, found: Found) -> Match | None:
        keys = judged_alone(query)
        if not all(matches_span(*pair, found) for pair in spans(query)):
            return None
        for key in keys:
            fits = matches(key, found)
            is_absent = fits is None and key.tag in _ALWAYS_SHOWN[query.level]
            if key.tag not in _COUNTED and (fits is False or is_absent):
                return None
        shown = self._counted(query, found)
        is_certain = True
        for key in keys:
            fits = matches(key, shown)
            if fits is False:
                return None
            is_certain = is_certain and fits is not None
        return Match(shown, is_certain)

    def _counted(self, query: Query, found: Found) -> Found:
        """With the numbers and modalities that were asked for and that the store does not show."""
        missing = {key.tag for key in query.keys} - {tag for tag in found if texts(found[tag])}
        study = qido.uid(found, STUDY_INSTANCE_UID)
        more: dict[str, Any] = {}
        one = Key(STUDY_INSTANCE_UID, "UI", (study,))
        if missing & {_SERIES_OF_STUDY, _MODALITIES_IN_STUDY} and study:
            series = list(self._search(Query(Level.SERIES, (one,)), (_MODALITY,)))
            modalities = sorted({text for s in series for text in texts(s.get(_MODALITY))})
            more[_SERIES_OF_STUDY] = _number(len(series))
            more[_MODALITIES_IN_STUDY] = {"vr": "CS", "Value": modalities}
        if _INSTANCES_OF_STUDY in missing and study:
            more[_INSTANCES_OF_STUDY] = _number(self._count((one,)))
        if _INSTANCES_OF_SERIES in missing and study and query.level is Level.SERIES:
            series_uid = qido.uid(found, SERIES_INSTANCE_UID)
            of_series = Key(SERIES_INSTANCE_UID, "UI", (series_uid,))
            more[_INSTANCES_OF_SERIES] = _number(self._count((one, of_series)))
        return {**found, **{tag: value for tag, value in more.items() if tag in missing}}

    def _count(self, keys: tuple[Key, ...]) -> int:
        return sum(1 for _ in self._search(Query(Level.IMAGE, keys), ()))

    def _patients(self, query: Query) -> Iterator[Match | None]:
        """QIDO-RS knows no Patients: they are those of all Studies that fit."""
        asked = {key.tag for key in query.keys}
        of_studies = [Key(_OF_PATIENT[tag], "IS") for tag in asked if tag in _OF_PATIENT]
        keys = tuple(key for key in query.keys if key.tag not in _COUNTED)
        studies = replace(query, level=Level.STUDY, keys=(*keys, *of_studies))
        is_counted = bool(asked & _COUNTED)
        patients: dict[str, Match] = {}
        sums: dict[str, dict[str, int]] = {}
        for found in self._search(studies, _included(studies)):
            match = self._match(studies, found)
            name = qido.text(found, PATIENT_ID)
            if match is None or (name in patients and not is_counted):
                yield None
                continue
            if name not in patients:
                patients[name] = match
                sums[name] = dict.fromkeys(_COUNTED, 0)
                yield None if is_counted else match
            sums[name][_STUDIES_OF_PATIENT] += 1
            for tag, of_study in _OF_PATIENT.items():
                sums[name][tag] += qido.number(match.found, of_study) or 0
        for name, match in patients.items() if is_counted else ():
            counts = {tag: _number(sums[name][tag]) for tag in asked & _COUNTED}
            whole = replace(match, found={**match.found, **counts})
            yield whole if all(matches(key, whole.found) for key in _of_all(query)) else None


def open_archive(store: Store, secrets: SecretStore, clock: Clock) -> Archive:
    """It connects when first asked. Raises: SourceMisconfiguredError and its kin."""
    sign_in: Authorization
    is_google = isinstance(store, GoogleHealthcareSource | GoogleHealthcareDestination)
    if isinstance(store, GoogleHealthcareSource):
        url = f"{store.address}/dicomWeb"
    else:
        url = store.address
    if isinstance(store, DicomwebDestination | DicomwebSource):
        from shared.adapters.signing_in import authorization

        sign_in = authorization(store, secrets)
    else:
        from shared.adapters.sources.google_tokens import GoogleTokens

        sign_in = GoogleTokens(store.name, url, timeout_s=store.timeout_s)
    server = SourceServer(
        store.name,
        url,
        sign_in,
        timeout_s=store.timeout_s,
        max_connections=16,
    )
    return Archive(
        server, clock, GOOGLE if is_google or "healthcare.googleapis" in url else ANY_SERVER
    )


def _narrowed(query: Query, dialect: Dialect) -> Iterator[list[tuple[str, str]]]:
    """The searches that together find all that fits, and as little else as the store allows."""
    uids = [tag for tag in _UIDS if _is_known_at(query.level, tag)]
    listed = next((tag for tag in uids if len(query.uids(tag)) > 1), None)
    # A store takes the range of a time for one of each day.
    times = [time for _, time in spans(query)]
    sent = [
        (key.tag, value)
        for key in query.keys
        if key.tag != listed and _is_known_at(query.level, key.tag) and key not in times
        if (value := _sent(key, dialect, is_fuzzy=query.is_fuzzy))
    ]
    if listed is None:
        yield sent
        return
    # How a list of UIDs is written differs from server to server.
    for uid in dict.fromkeys(query.uids(listed)):
        yield [*sent, (listed, uid)]


def _is_known_at(level: Level, tag: str) -> bool:
    """False for a key of a level below, which no search is asked to match (PS3.18 10.6.1.2)."""
    if tag == SOP_INSTANCE_UID:
        return level is Level.IMAGE
    return tag not in (SERIES_INSTANCE_UID, _MODALITY) or level in (Level.SERIES, Level.IMAGE)


def _sent(key: Key, dialect: Dialect, *, is_fuzzy: bool) -> str:
    """What the store is asked to match; "" for what is matched here alone."""
    if key.is_universal or len(key.values) != 1 or key.tag in _COUNTED:
        return ""
    value = key.values[0].strip()
    if len(value) > _LONGEST_VALUE or not value.isprintable() or "," in value:
        return ""
    if dialect.keys is not None and key.tag not in dialect.keys:
        return ""
    if is_range(key):
        return value if dialect.ranges is None or key.tag in dialect.ranges else ""
    if is_fuzzy and key.vr == "PN":
        return value
    if not dialect.wild_cards:
        return "" if is_wild_card(key) else value
    plain = _PLAIN.match(value)
    if takes_wild_cards(key) and plain is not None and plain[0] != value:
        # Names are compared and encoded in many ways; their beginnings are in one.
        return "" if plain[0].strip("*") == "" else f"{plain[0]}*"
    return value


def _included(query: Query) -> list[str]:
    """What the store is asked to show."""
    tags = [key.tag for key in query.keys if key.tag not in (_STUDIES_OF_PATIENT, *_OF_PATIENT)]
    return tags if len(tags) <= _MOST_INCLUDED else ["all"]


def _of(keys: Iterable[Key], tag: str) -> Key:
    return next(key for key in keys if key.tag == tag)


def _of_all(query: Query) -> Iterator[Key]:
    return (key for key in query.keys if key.tag in _COUNTED)


def _number(value: int) -> Mapping[str, Any]:
    return {"vr": "IS", "Value": [value]}
