"""The Transfer Syntax that rules want an Instance to leave in."""

from __future__ import annotations

from shared.dicom.changes import Transcoding
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import CannotTranscodeError


def in_wanted_syntax(instance: OutgoingInstance, wanted: Transcoding | None) -> OutgoingInstance:
    """The Instance as `wanted`; as it is if nothing is, or if it cannot be and may leave so.

    Raises: CannotTranscodeError, which names the rule; what reading the received file raises.
    """
    if wanted is None or wanted.transfer_syntax_uid == instance.transfer_syntax_uid:
        return instance
    # Codecs are slow to import, and only these deliveries need them.
    from shared.dicom.transcode import transcoded

    try:
        return transcoded(instance, wanted.transfer_syntax_uid, asked_by=f"rule {wanted.by}")
    except CannotTranscodeError:
        if wanted.sends_as_is:
            return instance
        raise
