"""Models behind POST {base_url}/chat/completions: OpenAI and the many services that speak so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

import requests
import urllib3

from shared.adapters.guarded_http import guarded_session
from shared.errors import ProviderFailedError
from shared.standardize.remote import (
    MALFORMED,
    SAFETY,
    TIMEOUT,
    UNAVAILABLE,
    Prompt,
    reason_of,
)

NAME: Final = "openai"

_MAX_BODY: Final = 1 << 20
_MAX_TOKENS: Final = 4_096  # some models count what they think before


class ChatCompletionsModel:
    """A Model at an address. Nothing connects before it is asked."""

    def __init__(
        self, *, base_url: str, model: str, timeout_s: float, token: Callable[[], str] | None = None
    ) -> None:
        """`token` is asked at each request; it may raise what a SecretStore raises."""
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model, self._timeout_s, self._token = model, timeout_s, token

    def complete(self, prompt: Prompt) -> str:
        """One request, which takes no longer than its time-out. Raises: ProviderFailedError."""
        document = {
            "model": self._model,
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
            "messages": [
                {"role": "system", "content": prompt.instruction},
                {"role": "user", "content": prompt.data},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "term", "strict": True, "schema": dict(prompt.schema)},
            },
        }
        headers = {"Authorization": f"Bearer {self._token()}"} if self._token else {}
        until_s = time.monotonic() + self._timeout_s
        try:
            with (
                guarded_session() as session,
                session.post(
                    self._url,
                    json=document,
                    headers=headers,
                    timeout=self._timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as answer,
            ):
                if answer.status_code != 200:
                    raise _failed_by_status(answer)
                body = _body(answer, until_s)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise ProviderFailedError(NAME, TIMEOUT) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            raise ProviderFailedError(NAME, UNAVAILABLE) from None
        return _text_of(body)


def _body(answer: requests.Response, until_s: float) -> bytes:
    """The whole body; one that drips for longer than the time-out is given up."""
    body = b""
    while piece := answer.raw.read1(16_384, decode_content=True):
        body += piece
        if len(body) > _MAX_BODY:
            raise ProviderFailedError(NAME, MALFORMED)
        if time.monotonic() > until_s:
            raise ProviderFailedError(NAME, TIMEOUT)
    return body


def _text_of(body: bytes) -> str:
    try:
        choice = json.loads(body)["choices"][0]
        text, reason = choice["message"].get("content"), choice.get("finish_reason")
        refusal = choice["message"].get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ProviderFailedError(NAME, MALFORMED) from None
    if reason == "content_filter" or refusal:
        raise ProviderFailedError(NAME, SAFETY)
    if not isinstance(text, str) or reason not in (None, "stop"):
        raise ProviderFailedError(NAME, MALFORMED)
    return text


def _failed_by_status(answer: requests.Response) -> ProviderFailedError:
    failed = ProviderFailedError(NAME, reason_of(answer.status_code))
    wish = answer.headers.get("Retry-After", "")
    failed.retry_after_s = float(wish) if wish.isascii() and wish.isdigit() else None
    return failed
