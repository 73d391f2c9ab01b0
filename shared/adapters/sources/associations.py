"""Associations with a peer that is asked: Query/Retrieve and Modality Worklist SCPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from pynetdicom.association import Association

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.adapters.destinations.security import security_of
from shared.adapters.destinations.user_identity import user_identity_of
from shared.adapters.requestor import Requestor
from shared.adapters.sources.failures import failure
from shared.config.peers import DimsePlace
from shared.errors import SourceUnavailableError
from shared.ports import SecretStore


class AskedPlace(DimsePlace, Protocol):
    """A part of the configuration that says whom to ask, and as whom."""

    @property
    def name(self) -> str: ...
    @property
    def ae_title(self) -> str: ...
    @property
    def calling_ae_title(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...


class AskedPeer:
    """Has associations with what `entity` configures."""

    def __init__(self, entity: AskedPlace, secrets: SecretStore) -> None:
        self._entity = entity
        self._security = security_of(
            entity.tls, host=entity.host, owner=entity.name, secrets=secrets
        )
        self._presents = user_identity_of(entity.credentials, secrets)

    @contextmanager
    def associated(
        self,
        contexts: Sequence[Any],
        *,
        within_s: float | None = None,
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
    ) -> Iterator[Association]:
        """An association in which the first of `contexts` is accepted; it is aborted if the block
        raises or is left in the middle. An answer may take `within_s`.

        Raises: SourceUnavailableError and its kin.
        """
        entity = self._entity
        ae = Requestor(
            entity.calling_ae_title,
            timeout_s=entity.timeout_s,
            security=self._security,
            presents=self._presents,
        )
        if within_s is not None:
            ae.dimse_timeout = ae.network_timeout = max(within_s, entity.timeout_s)
        try:
            association = ae.associate(
                entity.host,
                entity.port,
                contexts=list(contexts),
                ae_title=entity.ae_title,
                ext_neg=[*roles, *ae.negotiates()],
                evt_handlers=list(handlers),
            )
        except OSError as error:
            raise failure(outcomes.client_error(error), entity.name) from error
        try:
            if association.is_rejected:
                primitive: Any = association.acceptor.primitive
                verdict = outcomes.association_rejection(
                    primitive.result, primitive.result_source, primitive.diagnostic
                )
                raise failure(verdict, entity.name, "association rejected")
            if ae.connection_error is not None:
                verdict = outcomes.client_error(ae.connection_error)
                raise failure(verdict, entity.name) from ae.connection_error
            if not association.is_established:
                raise SourceUnavailableError(entity.name, "no association")
            wanted = contexts[0].abstract_syntax
            if not any(c.abstract_syntax == wanted for c in association.accepted_contexts):
                raise failure(_NOT_DONE, entity.name, wanted.name)
            yield association
            association.release()
        finally:
            if association.is_established:
                association.abort()


_NOT_DONE: Final = Verdict(Outcome.MISCONFIGURED, "the peer does not do this")
