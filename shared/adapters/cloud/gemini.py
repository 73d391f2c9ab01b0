"""Gemini on Vertex AI, by Google's own client (google-genai), which is imported here alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import google.auth.exceptions
import httpx2
from google import genai
from google.auth.credentials import Credentials
from google.genai import errors, types
from google.oauth2.credentials import Credentials as _Nobody

from shared.addresses import policy
from shared.errors import ProviderFailedError
from shared.standardize.remote import (
    MALFORMED,
    NO_CREDENTIALS,
    SAFETY,
    TIMEOUT,
    UNAVAILABLE,
    Prompt,
    reason_of,
)

NAME: Final = "vertex"

# They say at INFO what they do at every request.
for _talkative in ("httpx2", "google_genai"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)

_MAX_OUTPUT_TOKENS: Final = 8_192  # what a model thinks before counts as well
_MAX_BODY: Final = 1 << 20
_UNTIL: Final = "axiom_until_s"  # of a request: when its time-out is over
_STOPPED_FOR_SAFETY: Final = frozenset(
    {
        types.FinishReason.SAFETY,
        types.FinishReason.RECITATION,
        types.FinishReason.BLOCKLIST,
        types.FinishReason.PROHIBITED_CONTENT,
        types.FinishReason.SPII,
    }
)


class GeminiModel:
    """A Model of Vertex AI. Nothing connects before it is asked."""

    def __init__(
        self,
        *,
        project: str,
        location: str,
        model: str,
        timeout_s: float,
        base_url: str | None = None,
        credentials: Credentials | None = None,
        is_shown_token: bool = True,
    ) -> None:
        """Without `credentials`, those of the environment are used, from the first request on, for
        a server that `is_shown_token`.
        """
        if not is_shown_token:
            credentials = _Nobody(token="nobody's")  # noqa: S106
        self._base_url = base_url
        self._model, self._project, self._location = model, project, location
        self._credentials = credentials
        self._timeout_s = timeout_s
        # The client's own time-out is of each read; what drips would never end.
        hooks = {"request": [self._note_time], "response": [_bound]}
        self._options = types.HttpOptions(
            base_url=base_url,
            api_version="v1",
            timeout=int(timeout_s * 1000),
            client_args={"event_hooks": hooks},
        )
        self._client: genai.Client | None = None

    def complete(self, prompt: Prompt) -> str:
        """One request, which takes no longer than its time-out. Raises: ProviderFailedError."""
        try:
            self._look_at_address()
            answer = self._connected().models.generate_content(
                model=self._model,
                contents=prompt.data,
                config=types.GenerateContentConfig(
                    system_instruction=prompt.instruction,
                    temperature=0,
                    candidate_count=1,
                    max_output_tokens=_MAX_OUTPUT_TOKENS,
                    response_mime_type="application/json",
                    response_json_schema=dict(prompt.schema),
                ),
            )
        except errors.APIError as error:
            raise _failed_by_status(error) from None
        except httpx2.TimeoutException:
            raise ProviderFailedError(NAME, TIMEOUT) from None
        except google.auth.exceptions.DefaultCredentialsError:
            raise ProviderFailedError(NAME, NO_CREDENTIALS) from None
        except (httpx2.HTTPError, google.auth.exceptions.GoogleAuthError, OSError):
            raise ProviderFailedError(NAME, UNAVAILABLE) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # The client could not read what came; its text quotes it.
            raise ProviderFailedError(NAME, MALFORMED) from None
        return _text_of(answer)

    def _note_time(self, request: httpx2.Request) -> None:
        request.extensions[_UNTIL] = time.monotonic() + self._timeout_s

    def _look_at_address(self) -> None:
        """Raises: AddressRefusedError. Under TLS the certificate says that nobody else answers."""
        if self._base_url is not None:
            parts = urlsplit(self._base_url)
            policy().check_host(parts.hostname or "", parts.port or 443)

    def _connected(self) -> genai.Client:
        if self._client is None:
            self._client = genai.Client(
                vertexai=True,
                project=self._project,
                location=self._location,
                credentials=self._credentials,
                http_options=self._options,
            )
        return self._client


class _Bounded(httpx2.SyncByteStream):
    """A body that ends in time, and does not fill the memory."""

    def __init__(self, stream: httpx2.SyncByteStream, until_s: float) -> None:
        self._stream, self._until_s = stream, until_s

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if time.monotonic() > self._until_s:
                raise httpx2.ReadTimeout("it drips")
            if size > _MAX_BODY:
                raise ValueError(size)
            yield piece

    def close(self) -> None:
        self._stream.close()


def _bound(answer: httpx2.Response) -> None:
    """Called by the client before it reads the body."""
    assert isinstance(answer.stream, httpx2.SyncByteStream)
    answer.stream = _Bounded(answer.stream, answer.request.extensions[_UNTIL])


def _text_of(answer: types.GenerateContentResponse) -> str:
    feedback = answer.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        raise ProviderFailedError(NAME, SAFETY)
    candidates = answer.candidates or []
    if not candidates:
        raise ProviderFailedError(NAME, MALFORMED)
    reason = candidates[0].finish_reason
    if reason in _STOPPED_FOR_SAFETY:
        raise ProviderFailedError(NAME, SAFETY)
    content = candidates[0].content
    parts = (content.parts if content is not None else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    if reason not in (None, types.FinishReason.STOP) or not text:
        raise ProviderFailedError(NAME, MALFORMED)
    return text


def _failed_by_status(error: errors.APIError) -> ProviderFailedError:
    failed = ProviderFailedError(NAME, reason_of(error.code))
    headers = getattr(error.response, "headers", None)
    if isinstance(headers, Mapping) or hasattr(headers, "get"):
        wish = str(headers.get("retry-after") or "")  # type: ignore[union-attr]
        failed.retry_after_s = float(wish) if wish.isascii() and wish.isdigit() else None
    return failed
