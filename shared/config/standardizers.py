"""Standardizers as configuration: which Attributes get standard terms, from whom, and how boldly.

A rule's `standardize` action names a standardizer. What providers may look at is allow-listed here:
whatever could name a person, a date or a number of the hospital is not in the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.addresses import is_googles
from shared.config.entity import Entity, Name, by_name, entities
from shared.dicom.paths import AttributePath
from shared.errors import Fault, InvalidConfigurationError
from shared.rules.reading import nearest
from shared.rules.static_values import check_literal
from shared.standardize.attributes import DEFAULT_CONTEXT, LOOKED_AT, WITH_VOCABULARY

DEFAULT_THRESHOLD: Final = 0.7
_MAX_VOCABULARY: Final = 2_000_000  # characters


def _may_be_looked_at(keyword: str) -> str:
    if keyword not in LOOKED_AT:
        hint = nearest(keyword, LOOKED_AT)
        raise ValueError(
            f"{keyword[:100]!r} is none of the Attributes that a provider may look at"
            + (f"; {hint}" if hint else "")
        )
    return keyword


def _is_attribute(text: str) -> str:
    path = AttributePath.parse(text)  # raises ValueError with the nearest right keyword
    if path.has_any_item:
        raise ValueError("must name one Attribute, without [*]")
    return text


def _has_no_password(text: str) -> str:
    if "@" in urlsplit(text).netloc:
        raise ValueError("takes no user and password; give token_secret")
    return text


Keyword = Annotated[str, AfterValidator(_may_be_looked_at)]
Target = Annotated[str, Field(max_length=1000), AfterValidator(_is_attribute)]


def _takes_our_token(text: str) -> str:
    if text.startswith("https://") and not is_googles(text):
        raise ValueError("a token of Google's is shown to https://*.googleapis.com alone")
    return text


HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$"), AfterValidator(_has_no_password)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Provider(_Part):
    # A proposal that is less sure than this is none.
    threshold: Annotated[float, Field(gt=0, le=1)] = DEFAULT_THRESHOLD


class EmbeddedProvider(_Provider):
    """Words, rules and an order of evidence; asks nobody."""

    type: Literal["embedded"]


class _RemoteProvider(_Provider):
    # Not \w, every letter of Unicode: 200 of these took a tenth of each start to compile.
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:@-]{1,200}$")]
    # Of one request; with its attempts it takes no longer than `attempts` times this and 2 s more.
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    attempts: Annotated[int, Field(ge=1, le=5)] = 2
    # What one process asks at most; 0 is no limit. Above it, it counts as down.
    requests_per_minute: Annotated[int, Field(ge=0, le=100_000)] = 60


class VertexProvider(_RemoteProvider):
    """Gemini on Vertex AI, with the credentials of the environment."""

    type: Literal["vertex"]
    project: Annotated[str, Field(pattern=r"^[a-z0-9.:-]{1,100}$")]
    location: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    # Another address of the service, such as Private Service Connect's; a server without TLS is
    # shown no token.
    base_url: Annotated[HttpUrl, AfterValidator(_takes_our_token)] | None = None


class OpenaiProvider(_RemoteProvider):
    """Whatever answers POST {base_url}/chat/completions as OpenAI's service does, local or not."""

    type: Literal["openai"]
    base_url: HttpUrl
    token_secret: str | None = None  # a name in the secret store


AnyProvider = EmbeddedProvider | VertexProvider | OpenaiProvider
Provider = Annotated[AnyProvider, Field(discriminator="type")]


class Vocabulary(Entity):
    """Terms of the site, as CSV: `term`, and optionally `meaning`, `scheme`, `code`, `synonyms`
    (with vertical bars between).
    """

    # Rises with every change that matters: kept decisions hold for one edition.
    edition: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    csv: Annotated[str, Field(min_length=1, max_length=_MAX_VOCABULARY)]


class Standardizer(Entity):
    """Which Attributes get standard terms, and how."""

    attributes: Annotated[tuple[Keyword, ...], Field(min_length=1, max_length=16)]
    # By Attribute, the site's vocabulary that takes the place of the Standard's.
    vocabularies: dict[Keyword, Name] = Field(default_factory=dict)
    # What providers see besides the Attribute itself.
    context: Annotated[tuple[Keyword, ...], Field(max_length=16)] = DEFAULT_CONTEXT
    # Asked in this order until one is sure enough.
    providers: Annotated[tuple[Provider, ...], Field(min_length=1, max_length=8)] = (
        EmbeddedProvider(type="embedded"),
    )
    when_unsure: Literal["unchanged", "hold"] = "unchanged"
    when_down: Literal["unchanged", "hold"] = "unchanged"
    # `propose` changes nothing until a person approves.
    mode: Literal["write", "propose"] = "write"
    # By Attribute, where its term goes instead of into the Attribute itself.
    write_to: dict[Keyword, Target] = Field(default_factory=dict)
    # Have Anatomic Region Sequence say the body part as a code, where it says nothing.
    fill_anatomic_region: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Standardizer:
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("attributes: one is there twice")
        for field, given in (("vocabularies", self.vocabularies), ("write_to", self.write_to)):
            for keyword in given:
                if keyword not in self.attributes:
                    raise ValueError(f"{field}: {keyword} is none of the attributes")
        for keyword in self.attributes:
            if keyword not in WITH_VOCABULARY and keyword not in self.vocabularies:
                raise ValueError(f"vocabularies: {keyword} needs one of the site")
        if self.fill_anatomic_region and "BodyPartExamined" not in self.attributes:
            raise ValueError("fill_anatomic_region needs BodyPartExamined among the attributes")
        return self


def vocabulary_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong in the rows of vocabularies, with the line."""
    from shared.standardize.vocabulary import read_site_vocabulary

    for i, entity in enumerate(entities(document, "vocabularies")):
        if isinstance(entity.get("csv"), str) and entity["csv"]:
            try:
                read_site_vocabulary("", "", entity["csv"])
            except InvalidConfigurationError as error:
                for fault in error.faults[:100]:
                    yield Fault(f"vocabularies[{i}].csv", f"{fault.path}: {fault.message}")


def standardizer_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between standardizers and the vocabularies that they name."""
    vocabularies = by_name(document, "vocabularies")
    for i, entity in enumerate(entities(document, "standardizers")):
        named, targets = entity.get("vocabularies"), entity.get("write_to")
        for keyword, name in (named if isinstance(named, Mapping) else {}).items():
            path = f"standardizers[{i}].vocabularies.{keyword}"
            if not isinstance(name, str) or keyword not in LOOKED_AT:
                continue
            if name not in vocabularies:
                hint = nearest(name, vocabularies)
                yield Fault(path, f"there is no vocabulary {name[:100]!r}", hint)
                continue
            target = targets.get(keyword) if isinstance(targets, Mapping) else None
            yield from _unfit(path, str(target or keyword), vocabularies[name].get("csv"))


def _unfit(path: str, target: str, csv: object) -> Iterator[Fault]:
    """The first term that the Attribute cannot hold."""
    from shared.standardize.vocabulary import read_site_vocabulary

    try:
        attribute = AttributePath.parse(target)
        terms = read_site_vocabulary("", "", csv if isinstance(csv, str) else "").terms
    except (ValueError, InvalidConfigurationError):
        return  # told elsewhere
    for term in terms:
        reason = check_literal(attribute, [term], None)
        if reason:
            yield Fault(path, f"term {term[:100]!r}: {reason}")
            return
