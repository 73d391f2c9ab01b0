"""An OpenID Connect provider on loopback that signs real tokens, as Google does."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from werkzeug import Request, Response
from werkzeug.serving import make_server

from tests.fakes import FakeClock

CLIENT_ID, CLIENT_SECRET = "client-1", "hush"


class Issuer:
    """Signs tokens, publishes its keys, and lets in whom `email` names."""

    def __init__(self, url: str = "https://issuer.example", algorithm: str = "RS256") -> None:
        self.url, self.algorithm = url, algorithm
        self.email = "ada@example.org"
        self.fetched: list[str] = []
        self._codes: dict[str, Mapping[str, str]] = {}
        self.rotate("key-1")

    def rotate(self, key_id: str) -> None:
        """Sign with another key from now on, and publish that alone."""
        self.key_id = key_id
        if self.algorithm == "RS256":
            self._key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self._public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._public = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))

    @property
    def public_key(self) -> dict[str, Any]:
        """As it is published."""
        return {**self._public, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}

    def token(self, now_s: float, **claims: Any) -> str:
        """A good token of `email` for CLIENT_ID, unless `claims` say otherwise; None leaves out."""
        standard: dict[str, Any] = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "1234567890",
            "email": self.email,
            "email_verified": True,
            "iat": int(now_s),
            "exp": int(now_s) + 3600,
        }
        payload = {name: v for name, v in {**standard, **claims}.items() if v is not None}
        return jwt.encode(payload, self._key, self.algorithm, headers={"kid": self.key_id})

    def fetch(self, url: str) -> Mapping[str, Any]:
        """What it serves, without a network."""
        self.fetched.append(url)
        if url.endswith("/.well-known/openid-configuration"):
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
        return {"keys": [{"kty": "odd", "kid": "odd"}, self.public_key]}

    def let_in(self, login_url: str) -> str:
        """The code that a browser comes back with after a person signed in at `login_url`."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(login_url).query).items()}
        code = secrets.token_urlsafe()
        self._codes[code] = query
        return code

    def answer(self, request: Request, now_s: float) -> Response:
        """Over HTTP: discovery, keys and the token endpoint."""
        if request.path != "/token":
            return Response(json.dumps(self.fetch(request.url)), mimetype="application/json")
        asked = self._codes.pop(request.form["code"], None)
        if asked is None or request.form["client_secret"] != CLIENT_SECRET:
            return Response('{"error": "invalid_grant"}', status=400)
        assert asked["redirect_uri"] == request.form["redirect_uri"]
        digest = hashlib.sha256(request.form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        body = {"id_token": self.token(now_s, nonce=asked["nonce"]), "access_token": "x"}
        return Response(json.dumps(body), mimetype="application/json")


@contextmanager
def served(issuer: Issuer, clock: FakeClock) -> Generator[None]:
    """Serve it on loopback; its `url` is where, from then on."""

    @Request.application
    def application(request: Request) -> Response:
        return issuer.answer(request, clock.now().timestamp())

    server = make_server("127.0.0.1", 0, application, threaded=True)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def unsigned(claims: Mapping[str, Any], key_id: str) -> str:
    """A token with these claims that nobody signed (`alg: none`)."""
    head = {"typ": "JWT", "alg": "none", "kid": key_id}
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in (head, claims))
    return ".".join(part.rstrip(b"=").decode() for part in parts) + "."
