"""Body Part Examined from what a series says of itself.

Series description beats protocol, which beats study description, which beats a Body Part Examined
that these refute. A legal Value stays unless what they say lies elsewhere in the body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from shared.standardize.anatomy import ZONES, anatomy
from shared.standardize.lexicon import Lexicon, Match, Mention
from shared.standardize.proposals import Evidence, Question
from shared.standardize.text import words
from shared.standardize.vocabulary import built_in

ATTRIBUTE = "BodyPartExamined"
DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "StudyDescription")
QUALITY_ASSURANCE = "!QA"

_SURENESS = {
    Match.EXACT: 0.95,
    Match.STEM: 0.93,
    Match.COMPOUND: 0.88,
    Match.LOST_LETTER: 0.85,
    Match.CUT_SHORT: 0.82,
    Match.MISSPELT: 0.78,
}
_SEVERAL_PLACES = 0.5  # names places that no term has together: for people to decide
_FIRST_OF_LIMB = 0.8
_REFUTING = 0.85  # no guessed word takes the place of a legal Value
_BY_KERNEL = 0.75
_BY_MODALITY = 0.85
_BY_PURPOSE = 0.75

_MODALITY_WORDS = (
    "ct",
    "cta",
    "cte",
    "ctu",
    "mr",
    "mri",
    "mra",
    "mrt",
    "irm",
    "rm",
    "rmn",
    "tc",
    "tac",
    "tk",
    "kt",
    "pet",
    "petct",
    "us",
    "xr",
    "cr",
    "dx",
    "nm",
    "rx",
    "rtg",
    "usg",
    "xray",
)
_TAILS = ("w", "wo", "wx", "c", "wc", "nc", "con", "wcon", "wocon", "rt", "lt")
_PROJECTION = frozenset({"CR", "DX", "RF", "RG", "XA"})
_ONE_PART = {"MG": "BREAST", "PX": "JAW", "IO": "JAW", "OP": "EYE", "OPT": "EYE", "OPV": "EYE"}
_PET = frozenset({"pet", "petct", "petmr", "petmri", "fdg", "pt"})
_TUMOUR_SEARCH = frozenset(
    {
        "fdg",
        "tumor",
        "tumour",
        "tumori",
        "oncology",
        "onko",
        "onco",
        "restaging",
        "staging",
        "melanoma",
        "lymphoma",
        "dotatate",
        "dotatoc",
        "psma",
        "netspot",
        "axumin",
        "fluciclovine",
        "myeloma",
    }
)
_THORACIC = frozenset({"thoracic", "thor", "thoracique*", "torácic*", "torácico", "toracic*"})
_RANGE = frozenset({"to", "through", "thru", "bis", "a", "do", "till", "until", "hasta", "jusqu"})
_ASIDE = frozenset({"with", "incl", "including", "inc", "mit", "avec", "con", "inkl"})

# Abbreviated regions are letters whose sense only their company tells: A/P, C-A-P, CH/AB/PEL.
_SEPARATOR = r"\s?[/\-+&,\\]\s?"
_CHEST = r"(?:CHEST|CHST|CH|C|THX|TH|T)"
_ABDOMEN = r"(?:ABDOMEN|ABDO|ABD|AB|A)"
_PELVIS = r"(?:PELVIS|PELV|PEL|PLV|PE|P)"
_EDGES = (r"(?<![A-Z0-9])", r"(?![A-Z0-9])")
_NECK_TO_PELVIS = re.compile(
    f"{_EDGES[0]}N{_SEPARATOR}{_CHEST}{_SEPARATOR}{_ABDOMEN}{_SEPARATOR}{_PELVIS}{_EDGES[1]}"
)
_CHEST_TO_PELVIS = re.compile(
    f"{_EDGES[0]}{_CHEST}(?:{_SEPARATOR}| AND |\\s){_ABDOMEN}{_SEPARATOR}{_PELVIS}{_EDGES[1]}"
)
_ABDOMEN_PELVIS = re.compile(f"{_EDGES[0]}{_ABDOMEN}{_SEPARATOR}{_PELVIS}{_EDGES[1]}")
_CHEST_ABDOMEN = re.compile(f"{_EDGES[0]}{_CHEST}/{_ABDOMEN}{_EDGES[1]}")
_HEAD_NECK = re.compile(f"{_EDGES[0]}H{_SEPARATOR}N{_EDGES[1]}")
_LETTERS_AFTER_CT = re.compile(
    r"^\W*(?:CTA?|TC|TK|KT)(?:\W+(?=A(?![A-Z]))|\W*(?=N?[CT]?AP))(A|NCAP|[CT]?AP)(?:WO?|WX)?(?![A-Z])"
)
_AP_IN_CT = re.compile(r"(?<![A-Z0-9])(?<!SCOUT )AP(?![A-Z0-9])(?! SCOUT)")
_LEVELS = re.compile(
    r"(?<![A-Z0-9])([CTDLS])(1?\d)\s?(?:-|\u2013|/|TO|BIS)\s?([CTDLS])?(1?\d)(?![A-Z0-9])"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one text says: the term it amounts to, None if none; `mentioned` are all its places."""

    source: str
    term: str | None
    confidence: float
    mentioned: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    is_restricted: bool = False  # "lung only"
    is_kernel: bool = False  # a LUNG that may name the reconstruction and not the place

    @property
    def is_sure(self) -> bool:
        return self.term is not None and self.confidence > _SEVERAL_PLACES


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome for one question; `term` is None if nothing is known."""

    term: str | None
    confidence: float
    evidence: tuple[Evidence, ...]


def find_body_part(question: Question) -> Finding:
    """The Body Part Examined that the raw value and its context tell of, as the module says."""
    context = question.context
    modality = context.get("Modality", "").strip().upper()
    readings = [
        read(source, context[source], modality)
        for source in DESCRIPTIONS
        if context.get(source, "").strip()
    ]
    raw = question.raw_value.strip()
    raw_reading = read(ATTRIBUTE, raw, modality) if raw else None
    phantom = _phantom(readings, raw_reading)
    if phantom is not None:
        return phantom
    is_pet = modality == "PT" or any(
        _PET & set(words(context.get(source, ""))) for source in DESCRIPTIONS
    )
    told = _told(readings, modality, is_pet) or _by_modality(question, modality)
    if raw in built_in(ATTRIBUTE):
        return _keep_or_replace(raw, readings, told, modality)
    if any(QUALITY_ASSURANCE in one.mentioned for one in readings):
        return _unknown("quality assurance")
    if raw_reading is None or not raw_reading.is_sure:
        return told or _unknown("nothing in the texts tells")
    return _with_raw(raw_reading, readings, told, modality)


# ---- one text -------------------------------------------------------------------------------


@cache
def _lexicon() -> Lexicon:
    vocabulary = built_in(ATTRIBUTE)
    known = {phrase for phrase, _ in vocabulary.phrases}
    codes = []
    for term, one in vocabulary.terms.items():
        if not one.is_retired:
            spellings = (" ".join(words(term)), " ".join(words(one.meaning)))
            codes += [(spelt, term) for spelt in spellings if spelt not in known]
    return Lexicon(
        vocabulary.phrases,
        codes=codes,
        prefixes=_MODALITY_WORDS,
        suffixes=(*_TAILS, *_MODALITY_WORDS),
    )


@lru_cache(maxsize=8192)
def read(source: str, text: str, modality: str) -> Reading:
    """What `text`, found in the Attribute `source`, says about the place."""
    spelt = _spell_out(text, source, modality)
    mentions = _lexicon().find(spelt)
    mentions = tuple(one for one in mentions if not _is_channel_count(one, spelt))
    found = words(spelt)
    evidence = tuple(Evidence(source, one.phrase, one.match.value) for one in mentions)
    mentions = _spinal(mentions)
    terms = tuple(dict.fromkeys(one.meaning for one in mentions))
    if not terms:
        return Reading(source, None, 0, (), ())
    places = [one for one in terms if one != QUALITY_ASSURANCE]
    main = _without_asides(mentions, found)
    term, sureness = _together(main, found)
    confidence = min((_SURENESS[one.match] for one in mentions), default=0.0) * sureness
    restricted = "only" in found
    is_kernel = places == ["LUNG"] and modality == "CT" and source == "SeriesDescription"
    return Reading(source, term, confidence, tuple(terms), evidence, restricted, is_kernel)


def _spell_out(text: str, source: str, modality: str) -> str:
    """`text` with abbreviated regions and vertebral levels as words."""
    upper = text.upper()
    if len(upper) != len(text):
        return text
    text = text if modality in _PROJECTION else _spell_regions(text, source, modality)
    return (
        _LEVELS.sub(lambda found: f" {_levels(found)} ", text.upper())
        if _LEVELS.search(text.upper())
        else text
    )


def _spell_regions(text: str, source: str, modality: str) -> str:
    is_study = source != "SeriesDescription"
    for pattern, meaning, applies in (
        (_NECK_TO_PELVIS, " ncap ", True),
        (_CHEST_TO_PELVIS, " cap ", True),
        (_ABDOMEN_PELVIS, " abdpel ", is_study or modality == "CT"),
        (_CHEST_ABDOMEN, " chestabd ", True),
        (_HEAD_NECK, " headneck ", True),
    ):
        if applies and pattern.search(text.upper()):
            text = pattern.sub(meaning, text.upper())
    if modality in ("CT", "PT") and is_study:
        letters = _LETTERS_AFTER_CT.search(text.upper())
        if letters:
            place = {"A": "abdomen", "AP": "abdpel"}.get(letters[1], letters[1])
            return f"{place} {text[letters.end() :]}"
        text = _AP_IN_CT.sub(" abdpel ", text.upper()) if _AP_IN_CT.search(text.upper()) else text
    return text


def _levels(found: re.Match[str]) -> str:
    first, last = found[1].replace("D", "T"), (found[3] or found[1]).replace("D", "T")
    if first == last == "T" and int(found[2]) <= 2 and int(found[4]) <= 2:
        return found[0]  # T1/T2 is a weighting
    names = {"C": "cspine", "T": "tspine", "L": "lspine", "S": "sspine"}
    if (first, last) == ("L", "S"):
        return "lspine"  # down to S1, the lumbar spine's last disc
    return " ".join(dict.fromkeys((names[first], names[last])))


def _is_channel_count(mention: Mention, text: str) -> bool:
    found = words(text)
    return mention.phrase == "ch" and mention.start > 0 and found[mention.start - 1].isdigit()


def _spinal(mentions: tuple[Mention, ...]) -> tuple[Mention, ...]:
    """A chest that is named by its adjective is the thoracic spine where a spine is named."""
    body = anatomy()
    if not any(body.lies_in(one.meaning, "SPINE") for one in mentions):
        return mentions
    return tuple(
        replace(one, meaning="TSPINE") if one.phrase in _THORACIC else one for one in mentions
    )


def _without_asides(mentions: Sequence[Mention], found: Sequence[str]) -> list[str]:
    """The places in their order; "femur with knee" is the femur, if what follows is a limb's."""
    places: list[str] = []
    body = anatomy()
    for one in mentions:
        if one.meaning == QUALITY_ASSURANCE:
            continue
        is_aside = one.start > 0 and found[one.start - 1] in _ASIDE
        if places and is_aside and body.lies_in(one.meaning, "EXTREMITY"):
            continue
        places.append(one.meaning)
    return list(dict.fromkeys(places))


def _together(places: Sequence[str], found: Sequence[str]) -> tuple[str | None, float]:
    """The one term for several places, and how sure it is to be meant (1 = wholly)."""
    body = anatomy()
    if not places:
        return None, 0
    for all_else in ("PHANTOM", "WHOLEBODY"):
        if all_else in places:
            return all_else, 1
    if "THIGH" in places and {"SKULL", "HEAD"} & set(places):
        return "WHOLEBODY", 1
    if len(places) > 1 and _RANGE & set(found) and {"SKULL", "HEAD"} & set(places):
        places = ["NECK" if one in ("SKULL", "HEAD") else one for one in places]
    if "CHEST" in places and "LUNG" in places:
        places = [one for one in places if one != "LUNG"]
    if len(places) == 1:
        return places[0], 1
    joined = body.union(places)
    if joined is not None:
        return joined, 0.98
    if any(len(body.zones.get(one, ())) > 1 for one in places):
        joined = _joined_zones(places)
        if joined is not None:
            return joined, 0.98
    narrow = body.narrowest(places)
    if len(narrow) == 1:
        return narrow[0], 0.98
    joined = body.union(narrow)
    if joined is not None:
        return joined, 0.97
    if any(one in body.zones for one in places):
        joined = _joined_zones(narrow)
        if joined is not None:
            return joined, 0.95
    for limb in ("UPPERLIMB", "LOWERLIMB"):
        if all(body.lies_in(one, limb) for one in narrow):
            return places[0], _FIRST_OF_LIMB
    joined = _joined_zones(narrow)
    if joined is not None:
        return joined, 0.9
    return narrow[0], _SEVERAL_PLACES


def _joined_zones(narrow: Sequence[str]) -> str | None:
    body = anatomy()
    if not all(body.zones_of(one) for one in narrow):
        return None
    # An organ on the border of two zones lies in either; prefer those that are named.
    needed = {zone for one in narrow for zone in body.zones.get(one, ())}
    for one in narrow:
        if not body.zones_of(one) & needed:
            needed |= {next(zone for zone in ZONES if zone in body.zones_of(one))}
    if len(needed) == 1:
        return next(iter(needed))
    return body.union(needed)


# ---- all texts of a question ----------------------------------------------------------------


def _told(readings: Sequence[Reading], modality: str, is_pet: bool) -> Finding | None:
    """What the descriptions amount to together, best source first."""
    telling = [one for one in readings if one.is_sure and not one.is_kernel]
    if not telling:
        kernels = [one for one in readings if one.is_kernel]
        if kernels:
            return Finding("CHEST", _BY_KERNEL, kernels[0].evidence)
        unsure = [one for one in readings if one.term is not None]
        if unsure:
            return Finding(unsure[0].term, unsure[0].confidence, unsure[0].evidence)
        return None
    best = telling[0]
    if best.term == "CHEST" and {one.phrase for one in best.evidence} <= _THORACIC:
        body = anatomy()
        if any(one.term and body.lies_in(one.term, "SPINE") for one in telling):
            best = replace(best, term="TSPINE")
    for other in telling[1:]:
        best = _better(best, other, modality)
    if is_pet and best.term in ("SKULL", "THIGH", "NECKCHESTABDPELV"):
        return Finding("WHOLEBODY", best.confidence, best.evidence)
    return Finding(best.term, best.confidence, best.evidence)


def _better(best: Reading, lower: Reading, modality: str) -> Reading:
    """`best`, unless the text of lower rank tells the same place more exactly."""
    assert best.term is not None
    assert lower.term is not None
    body = anatomy()
    if best.term == lower.term or not body.are_related(best.term, lower.term):
        return best
    if best.term == "WHOLEBODY":
        return lower if lower.is_restricted else best
    if lower.term == "WHOLEBODY":
        return best
    made_of = body.zones.get(lower.term, frozenset())
    if modality == "CT" and len(made_of) > 1 and body.lies_in(best.term, lower.term):
        # Reformats of one acquisition are named after one of its regions.
        return lower
    is_one_place = len(body.zones.get(best.term, ())) < 2
    is_narrower = body.lies_in(lower.term, best.term) and not body.lies_in(best.term, lower.term)
    return lower if is_one_place and is_narrower else best


def _by_modality(question: Question, modality: str) -> Finding | None:
    part = _ONE_PART.get(modality)
    if part is not None:
        return Finding(part, _BY_MODALITY, (Evidence("Modality", modality, "only this part"),))
    said = {word for source in DESCRIPTIONS for word in words(question.context.get(source, ""))}
    is_pet = modality == "PT" or bool(_PET & said)
    if is_pet and said & _TUMOUR_SEARCH:
        purpose = min(said & _TUMOUR_SEARCH)
        evidence = Evidence("Modality", purpose, "a PET that looks for tumours")
        return Finding("WHOLEBODY", _BY_PURPOSE, (evidence,))
    return None


def _phantom(readings: Sequence[Reading], raw: Reading | None) -> Finding | None:
    for one in (*([raw] if raw else []), *readings):
        if one.term == "PHANTOM":
            return Finding("PHANTOM", one.confidence, one.evidence)
    return None


# ---- against the raw value ------------------------------------------------------------------


def _keep_or_replace(
    raw: str, readings: Sequence[Reading], told: Finding | None, modality: str
) -> Finding:
    """A legal Value stays, unless the best text that names a place names none near it."""
    kept = Finding(raw, 1.0, (Evidence(ATTRIBUTE, raw, "already a term"),))
    if told is None or told.term is None or told.confidence <= _SEVERAL_PLACES or raw == told.term:
        return kept
    if raw == "PHANTOM":
        return kept
    body = anatomy()
    if raw == "EXTREMITY" and body.lies_in(told.term, raw):
        return told
    if modality in _PROJECTION and _is_organ(raw, told.term):
        return told
    if told.confidence < _REFUTING or (raw in body.zones and body.are_related(raw, told.term)):
        return kept
    for one in readings:
        if not one.is_sure or one.is_kernel:
            continue
        if any(body.are_related(raw, place) for place in one.mentioned):
            return kept
        return told
    # The modality alone refutes no legal Value.
    return kept


def _is_organ(raw: str, region: str) -> bool:
    """True if `raw` is an organ of the region: a plain radiograph shows the region."""
    body = anatomy()
    return (
        region == "ABDOMEN"
        and raw in ("KIDNEY", "LIVER", "PANCREAS", "SPLEEN", "ADRENAL")
        and body.lies_in(raw, region)
    )


def _with_raw(
    raw: Reading, readings: Sequence[Reading], told: Finding | None, modality: str
) -> Finding:
    """A raw value that is no term but says one: right unless refuted, or told more exactly."""
    assert raw.term is not None
    mine = Finding(raw.term, raw.confidence, raw.evidence)
    if told is None or told.term is None or not any(one.is_sure for one in readings):
        return mine
    checked = _keep_or_replace(raw.term, readings, told, modality)
    if checked.term != raw.term:
        return checked
    body = anatomy()
    if (
        raw.term != "WHOLEBODY"
        and told.confidence >= raw.confidence
        and body.lies_in(told.term, raw.term)
    ):
        return told
    return mine


def _unknown(reason: str) -> Finding:
    return Finding(None, 0, (Evidence("", "", reason),))
