"""TLS contexts of DIMSE connections, made from files or secrets and made anew when those change."""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared import metrics
from shared.config.tls import ListenerTls, PeerTls, TlsProfile
from shared.errors import SecretMissingError

if TYPE_CHECKING:
    from shared.ports import Clock, SecretStore

log = logging.getLogger(__name__)

# How soon a renewed certificate counts.
LOOK_EVERY_S = 10.0
_WARN_BEFORE_S = 30 * 86400.0
_WARN_EVERY_S = 86400.0

# For TLS 1.2; those of TLS 1.3 are all good. B.13 wants the length of DHE keys set, which Python's
# module cannot.
_CIPHERS = {
    TlsProfile.BCP195: "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM",
    TlsProfile.MODIFIED_BCP195: "ECDHE+AESGCM:ECDHE+CHACHA20",
}


class TlsUnusableError(OSError):
    """What the configuration names cannot be read or used; the text says what, without secrets."""


@dataclass(slots=True)
class _Known:
    context: ssl.SSLContext
    material: tuple[str | None, ...]
    expires: datetime | None
    looked_s: float
    warned_s: float | None = None


class TlsContexts:
    """The contexts of a process, by what the configuration says. Thread-safe.

    What is unreadable while it is being renewed leaves the one that is known in force.
    """

    def __init__(self, secrets: SecretStore, clock: Clock) -> None:
        self._secrets, self._clock = secrets, clock
        self._known: dict[ListenerTls | PeerTls, _Known] = {}
        self._lock = threading.Lock()

    def of(self, tls: ListenerTls | PeerTls, owner: str) -> ssl.SSLContext:
        """The context, for a log that names `owner`. Raises: TlsUnusableError."""
        with self._lock:
            known = self._known.get(tls)
            now_s = self._clock.monotonic_s()
            if known is None or now_s - known.looked_s >= LOOK_EVERY_S:
                known = self._look(tls, known, owner, now_s)
                self._known[tls] = known
            self._warn(known, owner, now_s)
            return known.context

    def _look(
        self, tls: ListenerTls | PeerTls, known: _Known | None, owner: str, now_s: float
    ) -> _Known:
        try:
            material = (
                self._read(tls.certificate_file, tls.certificate_secret),
                self._read(tls.private_key_file, tls.private_key_secret) or tls.private_key,
                self._read(tls.trusted_file, tls.trusted_secret),
            )
            if known is None or material != known.material:
                expires = _expiry(material[0]) if material[0] else None
                made = _Known(_context(tls, *material), material, expires, now_s)
                if known is not None:
                    log.info("TLS certificates renewed", extra={"owner": owner})
                return made
        except TlsUnusableError as error:
            if known is None:
                raise
            log.error("TLS stays as it was", extra={"owner": owner, "reason": str(error)})
        known.looked_s = now_s
        return known

    def _read(self, path: str | None, secret: str | None) -> str | None:
        try:
            if path is not None:
                with open(path, encoding="ascii") as file:
                    return file.read()
            return self._secrets.get(secret) if secret is not None else None
        except SecretMissingError:
            raise TlsUnusableError(f"the secret {secret} is not there") from None
        except OSError as error:
            raise TlsUnusableError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise TlsUnusableError(f"{path}: not PEM") from None

    def _warn(self, known: _Known, owner: str, now_s: float) -> None:
        if known.expires is None:
            return
        left_s = (known.expires - self._clock.now()).total_seconds()
        metrics.PROCESS.gauge(metrics.CERTIFICATE_SECONDS, owner, value=left_s)
        is_due = known.warned_s is None or now_s - known.warned_s >= _WARN_EVERY_S
        if left_s > _WARN_BEFORE_S or not is_due:
            return
        known.warned_s = now_s
        log.log(
            logging.ERROR if left_s <= 0 else logging.WARNING,
            "the TLS certificate has expired" if left_s <= 0 else "the TLS certificate expires",
            extra={"owner": owner, "expires": known.expires.isoformat()},
        )


def _context(
    tls: ListenerTls | PeerTls, certificate: str | None, key: str | None, trusted: str | None
) -> ssl.SSLContext:
    is_server = isinstance(tls, ListenerTls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS[tls.profile])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        if trusted is not None:
            context.load_verify_locations(cadata=trusted)
        elif not is_server:
            context.load_default_certs()
        if certificate is not None and key is not None:
            _load_chain(context, certificate, key)
    except ssl.SSLError as error:
        raise TlsUnusableError(f"certificates and key do not work: {error.reason}") from None
    if isinstance(tls, PeerTls):
        context.check_hostname = tls.check_name
        context.verify_mode = ssl.CERT_REQUIRED
    elif tls.require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    elif tls.has_trusted:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """ssl takes them from a file alone, which nobody else may read and is gone at once."""
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{certificate}\n{key}\n")

        def no_password() -> str:
            raise TlsUnusableError("the private key is encrypted; give it without a password")

        context.load_cert_chain(path, password=no_password)
    finally:
        os.unlink(path)


def _expiry(certificate: str) -> datetime:
    from cryptography import x509  # not before somebody encrypts

    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        raise TlsUnusableError("the certificate is no PEM certificate") from None
    return found.not_valid_after_utc.astimezone(UTC)
