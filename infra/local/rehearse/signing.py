"""Whom Google's services call functions as: tokens signed with a key of our own, whose certificate
is where functions look for Google's.

Pub/Sub's emulator accepts that a subscription wants tokens, and never sends one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

# A token is good for an hour; Pub/Sub sends the same one for a while too.
_KEPT_S = 600.0


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


class Signer:
    """Makes the tokens of callers."""

    def __init__(self, key: SigningKey, certs_url: str) -> None:
        self.key, self.certs_url = key, certs_url
        self._kept: dict[tuple[str, str], tuple[float, str]] = {}

    def token(self, audience: str, email: str) -> str:
        """One that is good for a while yet."""
        until_s, token = self._kept.get((audience, email), (0.0, ""))
        if until_s < time.monotonic():
            token = self.key.token(audience, email)
            self._kept[audience, email] = time.monotonic() + _KEPT_S, token
        return token


@contextmanager
def signer() -> Iterator[Signer]:
    """A key whose certificate can be had while the block runs."""
    key = SigningKey("rehearsal")
    server = _Certificates(key)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Signer(key, f"http://127.0.0.1:{server.server_port}/certs")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Certificates

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        key = self.server.key
        body = json.dumps({key.key_id: key.certificate}).encode()
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=3600")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Certificates(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, key: SigningKey) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = key
