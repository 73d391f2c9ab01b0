"""Language models as providers: Vertex AI by Google's own client, and chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.oauth2.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.adapters.chat_completions import ChatCompletionsModel
from shared.adapters.cloud.gemini import GeminiModel
from shared.errors import ProviderFailedError, TransientError
from shared.standardize.chain import Chain, Link, Policy, Verdict
from shared.standardize.proposals import Question
from shared.standardize.remote import Guard, Model, Prompt, RemoteStandardizer
from shared.standardize.vocabulary import read_site_vocabulary
from tests.fakes import FakeClock
from tests.unit.standardize import model_server as servers
from tests.unit.standardize.model_server import Behaviour, ModelServer, model_server

QUESTION = Question(
    "BodyPartExamined", "HATGERINC", {"SeriesDescription": "hatgerinc sag", "Modality": "MR"}
)
SIDE = Question("Laterality", "bal", {"SeriesDescription": "hatgerinc sag", "Modality": "MR"})
# Long enough that no slow machine meets it where an answer comes.
TIMEOUT_S = 20.0
KINDS = ["vertex", "openai"]


class Saying:
    """A Model that says the same to everything."""

    def __init__(self, text: str) -> None:
        self._text = text

    def complete(self, prompt: Prompt) -> str:
        return self._text


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model_of(kind: str, server: ModelServer, timeout_s: float = TIMEOUT_S) -> Model:
    if kind == "vertex":
        return GeminiModel(
            project="p",
            location="europe-west4",
            model="gemini-x",
            timeout_s=timeout_s,
            base_url=server.url,
            credentials=Credentials(token="secret-token"),  # type: ignore[no-untyped-call]
        )
    return ChatCompletionsModel(
        base_url=f"{server.url}/v1",
        model="gemini-x",
        timeout_s=timeout_s,
        token=lambda: "secret-token",
    )


def provider_of(
    kind: str, server: ModelServer, *, timeout_s: float = TIMEOUT_S, **options: Any
) -> RemoteStandardizer:
    guard = options.pop("guard", None) or Guard(FakeClock())
    return RemoteStandardizer(
        kind,
        "gemini-x",
        model_of(kind, server, timeout_s),
        guard,
        pause=lambda seconds: None,
        **options,
    )


def reason_of(provider: RemoteStandardizer) -> str:
    with pytest.raises(ProviderFailedError) as caught:
        provider.propose(QUESTION)
    return str(caught.value.args[1])


class TestAModel:
    def test_proposes_a_term_with_evidence(self, kind: str, server: ModelServer) -> None:
        proposal = provider_of(kind, server).propose(QUESTION)
        assert (proposal.value, proposal.provider, proposal.model) == ("TSPINE", kind, "gemini-x")
        assert proposal.confidence == 0.9  # it may be sure of anything
        (evidence,) = proposal.evidence
        assert (evidence.source, evidence.phrase) == ("SeriesDescription", "hatgerinc")

    def test_is_bound_to_the_vocabulary_and_to_no_fancy(
        self, kind: str, server: ModelServer
    ) -> None:
        provider_of(kind, server).propose(QUESTION)
        body = json.loads(server.bodies[0])
        told = json.dumps(body)
        assert '"TSPINE"' in told
        assert '"NOT_KNOWN"' in told
        temperature = body["generationConfig"] if kind == "vertex" else body
        assert temperature["temperature"] == 0
        assert server.headers[0]["authorization"] == "Bearer secret-token"
        assert "secret-token" not in told

    def test_is_asked_where_the_service_is(self, kind: str, server: ModelServer) -> None:
        provider_of(kind, server).propose(QUESTION)
        assert server.paths == [
            "/v1/projects/p/locations/europe-west4/publishers/google/models/"
            "gemini-x:generateContent"
            if kind == "vertex"
            else "/v1/chat/completions"
        ]

    def test_may_not_know(self, kind: str, server: ModelServer) -> None:
        server.says["value"] = "NOT_KNOWN"
        proposal = provider_of(kind, server).propose(QUESTION)
        assert (proposal.value, proposal.confidence) == (None, 0)

    def test_may_not_quote_what_is_not_there(self, kind: str, server: ModelServer) -> None:
        server.says["phrase"] = "Jane Miller"
        (evidence,) = provider_of(kind, server).propose(QUESTION).evidence
        assert evidence.phrase == ""

    @pytest.mark.parametrize("status", [429, 503])
    def test_is_asked_again_if_it_is_busy(
        self, kind: str, server: ModelServer, status: int
    ) -> None:
        server.behaviour = servers.refusing(status, times=1)
        assert provider_of(kind, server).propose(QUESTION).value == "TSPINE"
        assert len(server.paths) == 2

    @pytest.mark.parametrize(
        ("status", "reason"), [(429, "quota"), (503, "unavailable"), (408, "unavailable")]
    )
    def test_is_given_up_if_it_stays_busy(
        self, kind: str, server: ModelServer, status: int, reason: str
    ) -> None:
        server.behaviour = servers.refusing(status)
        assert reason_of(provider_of(kind, server, attempts=3)) == reason
        assert len(server.paths) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_that_refuses_is_asked_no_second_time_and_the_status_is_told(
        self, kind: str, server: ModelServer, status: int
    ) -> None:
        """A wrong model name or a role that is missing: people have to see which."""
        server.behaviour = servers.refusing(status)
        assert reason_of(provider_of(kind, server, attempts=3)) == f"refused-{status}"
        assert len(server.paths) == 1

    def test_that_wants_a_longer_rest_gets_it(self, kind: str, server: ModelServer) -> None:
        """One that says how long its quota is spent is not asked until then, by anybody."""
        clock = FakeClock()
        provider = provider_of(kind, server, attempts=3, guard=Guard(clock))
        server.behaviour = servers.refusing(429, times=1, retry_after="60")
        assert reason_of(provider) == "quota"
        assert reason_of(provider) == "unavailable"
        assert len(server.paths) == 1
        clock.advance(61)
        assert provider.propose(QUESTION).value == "TSPINE"

    def test_that_does_not_answer_in_time_is_given_up(self, kind: str, server: ModelServer) -> None:
        server.behaviour = servers.slow
        assert reason_of(provider_of(kind, server, timeout_s=0.2, attempts=1)) == "timeout"

    def test_that_drips_is_given_up_in_time(self, kind: str, server: ModelServer) -> None:
        """Each byte comes in time, and the answer never."""
        server.behaviour = servers.dripping
        assert reason_of(provider_of(kind, server, timeout_s=0.3, attempts=1)) == "timeout"

    def test_that_says_too_much_is_not_read_to_its_end(
        self, kind: str, server: ModelServer
    ) -> None:
        server.behaviour = lambda server, path, body: (200, {}, b" " * (2 << 20))
        assert reason_of(provider_of(kind, server, attempts=1)) == "malformed"

    def test_that_is_not_there_is_unavailable(self, kind: str, server: ModelServer) -> None:
        server.url = "http://127.0.0.1:1"
        assert reason_of(provider_of(kind, server)) == "unavailable"

    @pytest.mark.parametrize(
        ("behaviour", "reason"),
        [
            (servers.stopped_for_safety, "safety"),
            (servers.cut_off, "malformed"),
            (servers.no_json, "malformed"),
            (servers.saying("TSPINE"), "malformed"),
            (servers.saying('{"value": "TSPINE"}'), "malformed"),
            (servers.saying('{"value": ["TSPINE"], "confidence": 1}'), "malformed"),
            (servers.saying('{"value": "TSPINE", "confidence": 7}'), "malformed"),
            (servers.saying("[" * 2_000), "malformed"),
        ],
    )
    def test_that_answers_badly_is_asked_no_second_time(
        self, kind: str, server: ModelServer, behaviour: Behaviour, reason: str
    ) -> None:
        server.behaviour = behaviour
        assert reason_of(provider_of(kind, server, attempts=3)) == reason
        assert len(server.paths) == 1

    def test_whose_service_refuses_the_question_has_failed(
        self, kind: str, server: ModelServer
    ) -> None:
        server.behaviour = servers.blocked
        assert reason_of(provider_of(kind, server)) in ("safety", "malformed")

    def test_outside_the_vocabulary_is_discarded_and_told(
        self, kind: str, server: ModelServer
    ) -> None:
        server.says["value"] = "KOLANO"
        told: list[tuple[str, ...]] = []
        links = [Link(provider_of(kind, server))]
        chain = Chain(links, when_unsure=Policy.HOLD, tell=lambda *what: told.append(what))
        decision = chain.decide(QUESTION)
        assert (decision.verdict, decision.proposal) == (Verdict.HOLD, None)
        assert told == [(kind, "body-part-examined", "discarded")]


class TestTheGuard:
    def test_leaves_a_service_that_is_down_alone(self, server: ModelServer) -> None:
        clock = FakeClock()
        provider = provider_of("openai", server, attempts=1, guard=Guard(clock))
        server.behaviour = servers.refusing(503)
        for _ in range(10):
            assert reason_of(provider) == "unavailable"
        assert len(server.paths) == 3
        clock.advance(31)
        server.behaviour = None
        assert provider.propose(QUESTION).value == "TSPINE"

    def test_keeps_to_the_quota(self, server: ModelServer) -> None:
        clock = FakeClock()
        guard = Guard(clock, requests_per_minute=2)
        provider = provider_of("openai", server, guard=guard)
        for _ in range(2):
            provider.propose(QUESTION)
        assert reason_of(provider) == "quota"
        clock.advance(61)
        assert provider.propose(QUESTION).value == "TSPINE"


class TestAnswers:
    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.text(),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.floats(), st.text(), st.integers()),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(["value", "confidence", "source", "phrase", "x"]),
                        inner,
                        max_size=4,
                    ),
                ),
                max_leaves=6,
            ).map(json.dumps),
        )
    )
    def test_of_any_shape_are_a_proposal_or_a_failure(self, text: str) -> None:
        provider = RemoteStandardizer("p", "m", Saying(text), Guard(FakeClock()))
        for answer in provider.propose_all([QUESTION, SIDE]):
            assert isinstance(answer, TransientError) or 0 <= answer.confidence <= 0.9
        try:
            found = provider.propose(QUESTION)
        except ProviderFailedError:
            return
        assert 0 <= found.confidence <= 0.9


class TestSeveralQuestionsAtOnce:
    """A Series costs one request, however many of its Attributes are asked about."""

    def both(self, kind: str, server: ModelServer, **said: Any) -> list[Any]:
        answer = {"BodyPartExamined": server.says, **said}
        server.behaviour = servers.saying(json.dumps(answer))
        return provider_of(kind, server).propose_all([QUESTION, SIDE])

    def test_are_one_request_and_each_has_its_answer(self, kind: str, server: ModelServer) -> None:
        side = {"value": "L", "confidence": 0.8, "source": "Modality", "phrase": ""}
        part, found = self.both(kind, server, Laterality=side)
        assert (part.value, found.value, found.vocabulary) == ("TSPINE", "L", "laterality")
        (body,) = server.bodies
        assert "hatgerinc" in body
        assert '"TSPINE"' in body
        assert "Laterality" in body

    @pytest.mark.parametrize("said", [{}, {"Laterality": 7}, {"Laterality": {"value": "L"}}])
    def test_of_which_one_is_answered_badly_keep_the_other(
        self, kind: str, server: ModelServer, said: dict[str, Any]
    ) -> None:
        part, failed = self.both(kind, server, **said)
        assert part.value == "TSPINE"
        assert failed.args == (kind, "malformed")

    def test_fail_together_with_their_request(self, kind: str, server: ModelServer) -> None:
        server.behaviour = servers.refusing(403)
        found = provider_of(kind, server).propose_all([QUESTION, SIDE])
        assert [str(one) for one in found] == [f"{kind}: refused-403"] * 2
        assert len(server.paths) == 1

    def test_with_more_terms_than_a_service_takes_are_several_requests(
        self, kind: str, server: ModelServer
    ) -> None:
        rows = "\n".join(["term", *(f"CT {number}" for number in range(300))])
        site = {"StudyDescription": read_site_vocabulary("procedures", "1", rows)}
        third = Question("StudyDescription", "foo", {})
        found = provider_of(kind, server, site=site).propose_all([QUESTION, third])
        assert len(found) == len(server.paths) == 2


class TestTheTermsThatAModelMayChoose:
    def told(self, server: ModelServer) -> list[str]:
        schema = json.loads(server.bodies[-1])["generationConfig"]["responseJsonSchema"]
        return list(schema["properties"]["value"]["enum"])

    def test_are_those_of_the_modality(self, server: ModelServer) -> None:
        provider_of("vertex", server).propose(Question("ViewPosition", "", {"Modality": "MG"}))
        assert "MLO" in self.told(server)
        assert "PA" not in self.told(server)

    def test_are_none_where_the_modality_has_none_and_nobody_is_asked(
        self, server: ModelServer
    ) -> None:
        provider = provider_of("vertex", server)
        assert provider.propose(Question("ViewPosition", "", {"Modality": "CT"})).value is None
        assert server.paths == []

    def test_are_the_likest_of_a_vocabulary_that_is_too_large(self, server: ModelServer) -> None:
        """A service refuses an enum of thousands; the right term has to be among those told."""
        rows = [f"CT PROCEDURE {number}," for number in range(2_000)]
        rows += ["MR KNEE LEFT,", "CT HEAD WITHOUT CONTRAST,CCT"]
        site = read_site_vocabulary("procedures", "1", "\n".join(["term,synonyms", *rows]))
        provider = provider_of("vertex", server, site={"StudyDescription": site})
        context = {"Modality": "MR", "SeriesDescription": "genou gauche"}
        provider.propose(Question("StudyDescription", "hatgerinc", context))
        told = self.told(server)
        assert told[0] == "MR KNEE LEFT"
        assert len(told) == 401  # and "not known"
