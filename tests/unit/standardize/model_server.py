"""A local server that speaks the REST of Vertex AI's generateContent and of chat completions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOKEN_PATH = "/token"
_TOKEN = json.dumps(
    {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
).encode()


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode()


def service_account(url: str) -> str:
    """Credentials of Google Cloud, as a file holds them, whose tokens come from this server."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "1",
            "private_key": _private_key(),
            "client_email": "axiom@p.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": url + TOKEN_PATH,
        }
    )


# The body of an answer that comes byte by byte, and does not end.
ENDLESS = b"endless"

# What one request is answered: status, header fields, body; or None to say nothing for a while.
Answer = tuple[int, Mapping[str, str], bytes]
Behaviour = Callable[["ModelServer", str, Mapping[str, Any]], Answer]


@dataclass
class ModelServer:
    """What was asked, and how it is answered. `says` is the model's answer as JSON values."""

    url: str = ""
    says: dict[str, Any] = field(
        default_factory=lambda: {
            "value": "TSPINE",
            "confidence": 0.97,
            "source": "SeriesDescription",
            "phrase": "hatgerinc",
        }
    )
    behaviour: Behaviour | None = None
    paths: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: Mapping[str, Any]) -> Answer:
        if self.behaviour is not None:
            return self.behaviour(self, path, body)
        return spoken(path, json.dumps(self.says))


def spoken(path: str, text: str, *, gemini: str = "STOP", chat: str = "stop") -> Answer:
    """A whole answer of a model that says `text`."""
    if path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": text}
        document: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": chat, "message": message}],
        }
    else:
        content = {"role": "model", "parts": [{"text": text}] if text else []}
        document = {
            "candidates": [{"content": content, "finishReason": gemini}],
            "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 7},
            "modelVersion": "fake",
        }
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def refusing(status: int, *, times: int = 1_000, retry_after: str = "") -> Behaviour:
    """Refuse so often, then answer."""
    left = [times]

    def behave(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
        if left[0] == 0:
            return spoken(path, json.dumps(server.says))
        left[0] -= 1
        error = {"error": {"code": status, "message": "no", "status": "RESOURCE_EXHAUSTED"}}
        fields = {"Content-Type": "application/json"}
        if retry_after:
            fields["Retry-After"] = retry_after
        return status, fields, json.dumps(error).encode()

    return behave


def slow(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    """Answer only when the test is done with it."""
    server.may_answer.wait(30)
    return spoken(path, "{}")


def dripping(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    """Begin to answer, and never end."""
    return 200, {"Content-Type": "application/json"}, ENDLESS


def saying(text: str) -> Behaviour:
    """Say this text."""
    return lambda server, path, body: spoken(path, text)


def stopped_for_safety(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    return spoken(path, "", gemini="SAFETY", chat="content_filter")


def cut_off(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    return spoken(path, '{"value": "TSP', gemini="MAX_TOKENS", chat="length")


def no_json(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    return 200, {"Content-Type": "application/json"}, b"<html>proxy</html>"


def blocked(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    """The prompt itself is refused: there are no candidates."""
    document = {"promptFeedback": {"blockReason": "SAFETY"}, "choices": []}
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Running on loopback until the block ends."""
    state = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == TOKEN_PATH:
                self._send(200, {"Content-Type": "application/json"}, _TOKEN)
                return
            state.paths.append(self.path)
            state.bodies.append(data.decode())
            state.headers.append({name.lower(): text for name, text in self.headers.items()})
            self._send(*state.answer(self.path, json.loads(data)))

        def _send(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
            try:
                self.send_response(status)
                for name, text in fields.items():
                    self.send_header(name, text)
                length = 1 << 30 if body == ENDLESS else len(body)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                while body == ENDLESS and not state.may_answer.wait(0.01):
                    self.wfile.write(b" ")
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client has given up

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
