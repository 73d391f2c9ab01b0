"""Routes for the people in charge of standard terms: /api/v1/standardize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import NoTermError, ObjectMissingError
from shared.pipeline import site_synonyms, standardization_report
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import Listing, described, described_page, fetch, page_response
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports
    from shared.pipeline.standardization_reviews import Settled
    from shared.ports import Page

URL_PREFIX = "/api/v1/standardize"

State = Literal[
    "open",
    "all",
    "applied",
    "kept",
    "unknown",
    "down",
    "proposed",
    "held",
    "approved",
    "corrected",
    "rejected",
    "reverted",
]


class ReviewQuery(Listing):
    """Which decisions to list."""

    state: State = Field(default="open", description="`open` waits for a person")
    series_uid: str | None = Field(default=None, description="Series Instance UID")


class ReviewPath(BaseModel):
    """Path parameters of one decision."""

    key: str = Field(description="The decision's `key`")


class SynonymPath(BaseModel):
    """Path parameters of one synonym."""

    key: str = Field(description="The synonym's `key`")


class ApproveRequest(BaseModel):
    """How far the word goes."""

    model_config = ConfigDict(extra="forbid")

    always: bool = Field(default=False, description="from now on, for equal phrases")


class CorrectRequest(ApproveRequest):
    """The right term."""

    value: str = Field(min_length=1, max_length=64)
    reason: str = Field(default="", max_length=1_000)


class ReasonRequest(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1_000)


class SettledAnswer(BaseModel):
    """The decision then; Instances that are decided about anew, and those whose file is gone."""

    decision: dict[str, Any]
    again: int
    gone: int


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    # Imports the vocabularies, which nothing else here needs.
    from shared.pipeline import standardization_reviews as reviews
    from shared.pipeline.series_decisions import OPEN

    routes = APIBlueprint(
        "standardize",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="standardize", description="Standard terms, and who answers for them")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.get(
        "/reviews", operation_id="list_reviews", responses={200: described_page("Decisions")}
    )
    def list_reviews(query: ReviewQuery) -> Response:
        """Decisions about Series, the newest first: those that wait for a person, or others."""
        states = {"open": OPEN, "all": ()}.get(query.state, (query.state,))

        def entries(limit: int, cursor: str | None) -> Page:
            return reviews.find(
                ports,
                states=states,
                series_instance_uid=query.series_uid or "",
                limit=limit,
                cursor=cursor,
            )

        return page_response(fetch(entries, query), reviews.summary)

    @routes.get(
        "/reviews/<key>",
        operation_id="read_review",
        responses={200: described("The decision, what was asked and why", {"type": "object"})},
    )
    def read_review(path: ReviewPath) -> Response:
        """One decision, with the Values that decided. That somebody looked is recorded."""
        return json_response(reviews.read(path.key, ports, by=acting()))

    @routes.post(
        "/reviews/<key>/approve",
        operation_id="approve_review",
        responses={200: SettledAnswer},
        openapi_extensions=_body(ApproveRequest, required=False),
    )
    def approve_review(path: ReviewPath) -> Response:
        """What was proposed is right: all Instances of the Series get it."""
        given = ApproveRequest.model_validate(_document())
        return _answer(lambda: reviews.approve(path.key, ports, by=acting(), always=given.always))

    @routes.post(
        "/reviews/<key>/correct",
        operation_id="correct_review",
        responses={200: SettledAnswer},
        openapi_extensions=_body(CorrectRequest),
    )
    def correct_review(path: ReviewPath) -> Response:
        """Another term is right, also in place of one that was applied: Instances that were
        delivered are delivered again.
        """
        given = CorrectRequest.model_validate(_document())
        return _answer(
            lambda: reviews.correct(
                path.key,
                given.value,
                ports,
                by=acting(),
                always=given.always,
                reason=given.reason,
            )
        )

    @routes.post(
        "/reviews/<key>/reject",
        operation_id="reject_review",
        responses={200: SettledAnswer},
        openapi_extensions=_body(ReasonRequest, required=False),
    )
    def reject_review(path: ReviewPath) -> Response:
        """What was proposed is wrong: the Instances go on as they came."""
        reason = ReasonRequest.model_validate(_document()).reason
        return _answer(lambda: reviews.reject(path.key, ports, by=acting(), reason=reason))

    @routes.post(
        "/reviews/<key>/revert",
        operation_id="revert_review",
        responses={200: SettledAnswer},
        openapi_extensions=_body(ReasonRequest, required=False),
    )
    def revert_review(path: ReviewPath) -> Response:
        """Take back what was applied: the Instances are delivered again as they came."""
        reason = ReasonRequest.model_validate(_document()).reason
        return _answer(lambda: reviews.revert(path.key, ports, by=acting(), reason=reason))

    @routes.post(
        "/reviews/<key>/ask-again",
        operation_id="ask_review_again",
        responses={200: SettledAnswer},
    )
    def ask_review_again(path: ReviewPath) -> Response:
        """Have the providers decide anew, as when one was down."""
        return _answer(lambda: reviews.ask_again(path.key, ports, by=acting()))

    @routes.get(
        "/report",
        operation_id="standardize_report",
        responses={200: described("Counts of Series, by provider", {"type": "object"})},
    )
    def standardize_report() -> Response:
        """How good each provider is: what was decided, and what people made of it."""
        return json_response(standardization_report.report(ports))

    @routes.get(
        "/synonyms", operation_id="list_synonyms", responses={200: described_page("Synonyms")}
    )
    def list_synonyms(query: Listing) -> Response:
        """What people of the site said once and for all, the newest first."""
        synonyms = site_synonyms.SiteSynonyms(ports.documents)
        return page_response(fetch(synonyms.page, query), dict)

    @routes.delete("/synonyms/<key>", operation_id="delete_synonym", responses={204: None})
    def delete_synonym(path: SynonymPath) -> Response:
        """Say so no more; what was decided by it stays."""
        reviews.forget_synonym(path.key, ports, by=acting())
        return Response(status=204)

    def _answer(settle: Any) -> Response:
        try:
            settled: Settled = settle()
        except NoTermError as error:
            raise ProblemError(422, error.code, f"{error}.", hint=error.hint) from None
        except ObjectMissingError:
            raise ProblemError(
                409,
                "file-gone",
                "The received file is gone, so the phrase is not known any more.",
                hint="Do it without `always`, and add the phrase to a vocabulary of the site.",
            ) from None
        decision = reviews.summary(settled.decision)
        return json_response({"decision": decision, "again": settled.again, "gone": settled.gone})

    return routes


def _document() -> dict[str, Any]:
    return dict(received_document()) if request.content_length else {}


def _body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    content = {JSON: {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}
