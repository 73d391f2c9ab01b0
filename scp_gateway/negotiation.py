"""Answering an A-ASSOCIATE-RQ (PS3.8 7.1) by our own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.acse import ACSE
from pynetdicom.association import ServiceUser
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext

from scp_gateway.presentation_contexts import answer_context, is_storage_sop_class
from scp_gateway.query_services import gets
from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL

if TYPE_CHECKING:
    from scp_gateway.association import GatewayAssociation


class GatewayAcse(ACSE):
    """Negotiation as acceptor by our own tables, which are looked up and never copied."""

    def negotiate_association(self) -> None:
        """Answer the A-ASSOCIATE-RQ that `assoc.requestor.primitive` holds.

        Extended negotiation is answered for Query/Retrieve, user identity where that was asked for,
        role selection for storage commitment and, where it may ask for C-GET, for storage: for the
        rest the requestor then knows that it is SCU, and that the defaults hold (PS3.7 D.3.3).
        """
        association = cast("GatewayAssociation", self.assoc)
        request = cast(A_ASSOCIATE, self.requestor.primitive)
        self.requestor.ae_title = request.calling_ae_title
        refused = association.admit(request)
        if refused is not None:
            self.send_reject(refused.result, refused.source, refused.reason)
            evt.trigger(association, evt.EVT_REJECTED, {})
            return
        accept_unknown = association.listener.accept_unknown_sop_classes
        answered = [
            _answered(proposed, association, self.requestor)
            for proposed in request.presentation_context_definition_list
        ]
        association.set_contexts(answered)
        role = self.requestor.role_selection.get(UID(STORAGE_COMMITMENT_PUSH_MODEL))
        if role is not None and association.commits:
            # Whoever was asked reports as SCP, on an association that it requests (PS3.4 J.3.4).
            self.acceptor.add_negotiation_item(role)
        if any(gets(uid) for uid in association.offered):
            for sop_class, role in self.requestor.role_selection.items():
                if is_storage_sop_class(str(sop_class), accept_unknown=accept_unknown):
                    self.acceptor.add_negotiation_item(role)
        for uid, done in association.extended.items():
            extended = SOPClassExtendedNegotiation()
            extended.sop_class_uid = UID(uid)
            extended.service_class_application_information = done
            self.acceptor.add_negotiation_item(extended)
        if association.confirms_identity:
            confirmed = UserIdentityNegotiation()
            confirmed.server_response = b""
            self.acceptor.add_negotiation_item(confirmed)
        self.send_accept()
        evt.trigger(association, evt.EVT_ACCEPTED, {})
        association.is_established = True
        evt.trigger(association, evt.EVT_ESTABLISHED, {})


def is_scp_of(requestor: ServiceUser, sop_class_uid: str) -> bool:
    """True if the requestor proposed to be SCP of the SOP Class (PS3.7 D.3.3.4)."""
    role = requestor.role_selection.get(UID(sop_class_uid))
    return role is not None and bool(role.scp_role)


def _answered(
    proposed: PresentationContext, association: GatewayAssociation, requestor: ServiceUser
) -> PresentationContext:
    listener, sop_class = association.listener, str(proposed.abstract_syntax)
    # What C-GET sends goes to who asked, over contexts of storage.
    is_taker = any(map(gets, association.offered)) and is_scp_of(requestor, sop_class)
    answer = answer_context(
        sop_class,
        [str(uid) for uid in proposed.transfer_syntax],
        accept_unknown=listener.accept_unknown_sop_classes,
        verifies=listener.verification,
        stores=listener.storage or is_taker,
        commits=association.commits,
        queries=association.offered,
    )
    context = PresentationContext()
    context.context_id = proposed.context_id
    context.abstract_syntax = proposed.abstract_syntax
    if answer.transfer_syntax:
        context.add_transfer_syntax(answer.transfer_syntax)
    context.result = int(answer.result)
    # Default roles: the requestor is SCU, we are SCP.
    context._as_scu, context._as_scp = False, True
    return context
