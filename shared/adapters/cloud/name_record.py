"""A name in a zone of Cloud DNS, and the address that Google's metadata server gives us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests
from google.auth.exceptions import GoogleAuthError

from shared.errors import StorageUnavailableError

ENDPOINT = "https://dns.googleapis.com"
METADATA = "http://metadata.google.internal"
TERRAFORM_ADDRESS = "module.gateway.google_dns_managed_zone.this"

_ADDRESS_PATH = "/computeMetadata/v1/instance/network-interfaces/0/ip"
_TTL_S = 30
_TIMEOUT_S = 10.0


def own_address(metadata: str = METADATA) -> str:
    """Our address in the network. Raises: StorageUnavailableError."""
    try:
        answer = requests.get(
            metadata + _ADDRESS_PATH, headers={"Metadata-Flavor": "Google"}, timeout=_TIMEOUT_S
        )
        answer.raise_for_status()
    except requests.RequestException as error:
        raise StorageUnavailableError(
            f"the metadata server does not say our address: {type(error).__name__}"
        ) from None
    return answer.text.strip()


class CloudDnsRecord:
    """NameRecord: the A record of `name` (with its dot at the end) in a managed zone.

    `session` adds the credentials; Cloud DNS itself compares, for it refuses to delete a record
    that is not there as it is named.
    """

    def __init__(
        self,
        session: requests.Session,
        project: str,
        zone: str,
        name: str,
        endpoint: str = ENDPOINT,
    ) -> None:
        self._session, self._name = session, name
        self._url = f"{endpoint}/dns/v1/projects/{project}/managedZones/{zone}"
        self._ttl_s = _TTL_S

    def read(self) -> Sequence[str]:
        """The addresses."""
        answer = self._ask("GET", f"{self._url}/rrsets", params={"name": self._name, "type": "A"})
        for found in answer.json().get("rrsets", []):
            self._ttl_s = found["ttl"]
            return sorted(found["rrdatas"])
        return []

    def replace(self, before: Sequence[str], after: Sequence[str]) -> bool:
        """Compare and set."""
        change = {"additions": [self._records(after, _TTL_S)]}
        if before:
            change["deletions"] = [self._records(before, self._ttl_s)]
        answer = self._ask("POST", f"{self._url}/changes", json=change, conflicts=(404, 409, 412))
        return answer.status_code == 200

    def _records(self, addresses: Sequence[str], ttl_s: int) -> dict[str, Any]:
        return {"name": self._name, "type": "A", "ttl": ttl_s, "rrdatas": list(addresses)}

    def _ask(
        self, method: str, url: str, conflicts: Sequence[int] = (), **named: Any
    ) -> requests.Response:
        try:
            answer = self._session.request(method, url, timeout=_TIMEOUT_S, **named)
        except (requests.RequestException, GoogleAuthError) as error:
            raise StorageUnavailableError(f"Cloud DNS: {type(error).__name__}") from None
        if answer.status_code != 200 and answer.status_code not in conflicts:
            raise StorageUnavailableError(
                f"Cloud DNS answers {answer.status_code}: see {TERRAFORM_ADDRESS}"
            )
        return answer
