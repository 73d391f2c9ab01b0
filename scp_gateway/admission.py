"""Who may associate with a listener, and the A-ASSOCIATE-RJ for who may not (PS3.8 9.3.4)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from scp_gateway.presentation_contexts import DICOM_APPLICATION_CONTEXT
from shared.config.entities import Listener


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, Source and Reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), and its name in logs."""

    result: int
    source: int
    reason: int
    name: str


_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _ACSE, _PRESENTATION = 1, 2, 3

APPLICATION_CONTEXT_NOT_SUPPORTED = Rejection(
    _PERMANENT, _SERVICE_USER, 2, "application-context-name-not-supported"
)
PEER_NOT_ALLOWED = Rejection(_PERMANENT, _SERVICE_USER, 1, "peer-not-allowed")
CALLING_AE_TITLE_NOT_RECOGNIZED = Rejection(
    _PERMANENT, _SERVICE_USER, 3, "calling-AE-title-not-recognized"
)
CALLED_AE_TITLE_NOT_RECOGNIZED = Rejection(
    _PERMANENT, _SERVICE_USER, 7, "called-AE-title-not-recognized"
)
# Source: DICOM UL service-provider, ACSE related function (PS3.7 D.3.3.7).
USER_NOT_ACCEPTED = Rejection(_PERMANENT, _ACSE, 1, "user-identity-not-accepted")
USER_NOT_KNOWN_NOW = Rejection(_TRANSIENT, _ACSE, 1, "user-identity-cannot-be-checked")
TEMPORARY_CONGESTION = Rejection(_TRANSIENT, _PRESENTATION, 1, "temporary-congestion")
LOCAL_LIMIT_EXCEEDED = Rejection(_TRANSIENT, _PRESENTATION, 2, "local-limit-exceeded")


def rejection(
    listener: Listener,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    peer_address: str,
    application_context: str,
) -> Rejection | None:
    """Why the listener turns the request away; None if it does not.

    Leading and trailing spaces of AE Titles do not count, case does (PS3.5 6.2).
    """
    if application_context != DICOM_APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    if listener.allowed_peers and not _is_within(peer_address, listener.allowed_peers):
        return PEER_NOT_ALLOWED
    callers = listener.allowed_calling_ae_titles
    if callers and calling_ae_title.strip() not in callers:
        return CALLING_AE_TITLE_NOT_RECOGNIZED
    if listener.require_called_ae_title and called_ae_title.strip() != listener.ae_title:
        return CALLED_AE_TITLE_NOT_RECOGNIZED
    return None


def _is_within(address: str, networks: tuple[str, ...]) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)
