"""What stands before a function at Google: Pub/Sub's token on each push, and an answer where no
instance runs.

Pub/Sub's emulator accepts that a subscription wants tokens, and never sends one; and it lets a
message wait for its whole deadline where nobody listens, while Cloud Run answers 503 at once.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

CERTS_PATH = "/certs"

_TIMEOUT_S = 600.0
_FORWARDED = ("content-type", "content-length", "user-agent")


class SigningKey:
    """An RSA key with a certificate, as Google has them for tokens."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=7))
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._signer = crypt.RSASigner.from_string(pem.decode(), key_id)

    def token(self, audience: str, email: str, **changes: Any) -> str:
        """As Google signs one for a push; a claim of None is left out."""
        now_s = int(time.time())
        claims = {
            "iss": "https://accounts.google.com",
            "aud": audience,
            "email": email,
            "email_verified": True,
            "sub": "1",
            "iat": now_s,
            "exp": now_s + 3600,
            **changes,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        encoded: bytes = jwt.encode(self._signer, told)
        return encoded.decode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Front

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        certificates = {self.server.key.key_id: self.server.key.certificate}
        self._send(200, json.dumps(certificates).encode(), {"Cache-Control": "max-age=3600"})

    def do_POST(self) -> None:
        front, name = self.server, self.path.strip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in self.headers.items() if k.lower() in _FORWARDED}
        token = front.key.token(front.audiences[name], front.email)
        connection = http.client.HTTPConnection("127.0.0.1", front.ports[name], timeout=_TIMEOUT_S)
        try:
            connection.request("POST", "/", body, {**headers, "Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            status, said = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            status, said = 503, b"no instance"
        finally:
            connection.close()
        self._send(status, b"" if status == 204 else said, {})

    def _send(self, status: int, body: bytes, fields: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**fields, "Content-Length": str(len(body))}.items():
            if not (status == 204 and name == "Content-Length"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Front(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, email: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.email, self.key = email, SigningKey("rehearsal")
        # By entry point: who its tokens are for, and where its process listens.
        self.audiences: dict[str, str] = {}
        self.ports: dict[str, int] = {}


class Front:
    """Takes the pushes for all functions."""

    def __init__(self, server: _Front) -> None:
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_port}"

    def add(self, function: str, audience: str, port: int) -> str:
        """The endpoint of a function's pushes."""
        self._server.audiences[function], self._server.ports[function] = audience, port
        return f"{self.url}/{function}"


@contextmanager
def front(email: str) -> Iterator[Front]:
    """Stands before functions while the block runs; `email` is whose tokens are sent."""
    server = _Front(email)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Front(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
