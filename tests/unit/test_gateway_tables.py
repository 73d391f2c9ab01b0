"""The gateway's tables and encodings: contexts, status, command sets, File Meta, admission."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    AllTransferSyntaxes,
    CTImageStorage,
    MediaStorageDirectoryStorage,
)
from pynetdicom import AllStoragePresentationContexts

from scp_gateway.admission import Rejection, rejection
from scp_gateway.association_request import put_right
from scp_gateway.dimse_messages import Command, parse_command, store_response
from scp_gateway.dimse_status import SUCCESS, Answer, Status, answer_for
from scp_gateway.file_meta import IMPLEMENTATION_CLASS_UID, file_meta
from scp_gateway.presentation_contexts import (
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    ContextResult,
    answer_context,
)
from shared.dicom.command_set import MalformedCommandSetError
from shared.errors import (
    InstanceTooLargeError,
    InvalidInstanceError,
    MalformedHeaderError,
    NotDicomError,
    OverloadedError,
    SopInstanceMismatchError,
    StorageUnavailableError,
    TruncatedInstanceError,
)
from tests.gateway import associate_rq, command_elements, command_set, echo_rq, listener, store_rq

PRIVATE_SOP_CLASS = "1.2.826.0.1.3680043.2.1545.99"
PRIVATE_TRANSFER_SYNTAX = "1.2.840.113619.5.2"
JPEG_LS = "1.2.840.10008.1.2.4.80"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


class TestPresentationContexts:
    def test_every_storage_sop_class_that_pynetdicom_knows_is_stored(self) -> None:
        known = {str(c.abstract_syntax) for c in AllStoragePresentationContexts}
        assert known <= STORAGE_SOP_CLASSES
        assert len(STORAGE_SOP_CLASSES) == 208

    @pytest.mark.parametrize(
        "uid",
        [
            "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation, 2024
            "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame, retired
            "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane, retired
            "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol: no patient's, stored all the same
        ],
    )
    def test_new_and_retired_sop_classes_are_stored(self, uid: str) -> None:
        assert uid in STORAGE_SOP_CLASSES

    def test_every_transfer_syntax_of_a_data_set_is_known(self) -> None:
        """Its own list lacks the retired JPEG processes, JPEG XL and JPIP."""
        unsent = {"1.2.840.10008.1.2.7.1", "1.2.840.10008.1.2.7.2", "1.2.840.10008.1.2.7.3"}
        assert {str(uid) for uid in AllTransferSyntaxes} - unsent <= TRANSFER_SYNTAXES
        for uid in (JPEG_LS, "1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.4.110"):
            assert uid in TRANSFER_SYNTAXES
        assert not unsent & TRANSFER_SYNTAXES

    @pytest.mark.parametrize("sop_class", sorted(STORAGE_SOP_CLASSES))
    def test_each_sop_class_is_accepted_in_each_transfer_syntax(self, sop_class: str) -> None:
        for syntax in TRANSFER_SYNTAXES:
            answer = answer_context(sop_class, [syntax], accept_unknown=False)
            assert (answer.result, answer.transfer_syntax) == (ContextResult.ACCEPTANCE, syntax)

    def test_the_requestors_order_decides(self) -> None:
        for proposed in ([JPEG_LS, EXPLICIT, IMPLICIT], [IMPLICIT, EXPLICIT, JPEG_LS]):
            answer = answer_context(CTImageStorage, proposed, accept_unknown=False)
            assert answer.transfer_syntax == proposed[0]

    def test_an_unknown_transfer_syntax_is_passed_over(self) -> None:
        proposed = [PRIVATE_TRANSFER_SYNTAX, IMPLICIT]
        for accept_unknown in (False, True):
            answer = answer_context(CTImageStorage, proposed, accept_unknown=accept_unknown)
            assert answer.transfer_syntax == IMPLICIT

    def test_a_private_transfer_syntax_alone_is_accepted_by_setting(self) -> None:
        alone = [PRIVATE_TRANSFER_SYNTAX]
        refused = answer_context(CTImageStorage, alone, accept_unknown=False)
        assert refused.result is ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
        accepted = answer_context(CTImageStorage, alone, accept_unknown=True)
        assert accepted.result is ContextResult.ACCEPTANCE

    def test_a_private_sop_class_is_accepted_by_setting(self) -> None:
        refused = answer_context(PRIVATE_SOP_CLASS, [EXPLICIT], accept_unknown=False)
        assert refused.result is ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        accepted = answer_context(PRIVATE_SOP_CLASS, [EXPLICIT], accept_unknown=True)
        assert accepted.result is ContextResult.ACCEPTANCE

    @pytest.mark.parametrize(
        "uid",
        [
            "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root Query/Retrieve Information Model - FIND
            MediaStorageDirectoryStorage,
            "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        ],
    )
    def test_other_services_are_refused_even_where_unknown_ones_are_not(self, uid: str) -> None:
        answer = answer_context(uid, [IMPLICIT], accept_unknown=True)
        assert answer.result is ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED


class TestDimseStatus:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (SopInstanceMismatchError("SOPInstanceUID", "1.2", "1.3"), 0xA900),
            (NotDicomError("text"), 0xC000),
            (MalformedHeaderError("bad length", 400), 0xC000),
            (TruncatedInstanceError("PixelData", 10, 5), 0xC000),
            (InvalidInstanceError("no Study Instance UID"), 0xC000),
            (InstanceTooLargeError(10), 0xA700),
            (OverloadedError("full"), 0xA700),
            (StorageUnavailableError("locked"), 0xA700),
            (KeyError("a bug"), 0x0110),
        ],
    )
    def test_each_error_has_its_status(self, error: Exception, status: int) -> None:
        assert answer_for(error).status == status

    def test_a_bug_tells_the_sender_nothing_of_the_data(self) -> None:
        assert "DOE^JOHN" not in answer_for(ValueError("DOE^JOHN")).comment

    @given(st.text())
    def test_any_comment_is_a_legal_value(self, text: str) -> None:
        comment = answer_for(InvalidInstanceError(text)).comment
        assert len(comment) <= 64
        assert comment.isascii()
        assert "\\" not in comment
        assert comment == "" or comment.isprintable()


class TestCommandSets:
    def test_a_store_request_is_read(self) -> None:
        command = parse_command(store_rq(sop_instance_uid="1.2.30", message_id=7))
        assert command == Command(1, 7, True, CTImageStorage, "1.2.30")

    def test_an_echo_request_is_read(self) -> None:
        assert not parse_command(echo_rq(3)).has_data_set

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_command_or_malformed(self, data: bytes) -> None:
        for text in (data, store_rq() + data, store_rq()[: len(data)]):
            try:
                parse_command(text)
            except MalformedCommandSetError:
                continue

    def test_another_group_is_malformed(self) -> None:
        stray = struct.pack("<HHL", 0x0008, 0x0016, 0)
        with pytest.raises(MalformedCommandSetError):
            parse_command(store_rq() + stray)

    @pytest.mark.parametrize("missing", [0x0100, 0x0800])
    def test_a_command_without_field_or_data_set_type_is_malformed(self, missing: int) -> None:
        elements = command_elements(store_rq())
        del elements[missing], elements[0]
        with pytest.raises(MalformedCommandSetError):
            parse_command(command_set(elements))

    def test_the_response_is_what_ps37_says(self) -> None:
        """PS3.7 Table 9.3-2, and PS3.8 9.3.5 around it."""
        request = parse_command(store_rq(sop_instance_uid="1.2.3", message_id=258))
        data = store_response(5, request, Answer(Status.CANNOT_UNDERSTAND, "odd"))
        assert data == bytes.fromhex(
            "04 00 00000076  00000072 05 03"
            "00000000 04000000 64000000"
            "00000200 1a000000" + b"1.2.840.10008.5.1.4.1.1.2\0".hex() + "00000001 02000000 0180"
            "00002001 02000000 0201"
            "00000008 02000000 0101"
            "00000009 02000000 00c0"
            "00000209 04000000 6f646420"
            "00000010 06000000 312e322e3300"
        )

    def test_success_has_no_comment(self) -> None:
        elements = command_elements(store_response(1, parse_command(store_rq()), SUCCESS)[12:])
        assert elements[0x0900] == b"\0\0"
        assert 0x0902 not in elements


class TestAssociationRequests:
    RIGHT = associate_rq([(CTImageStorage, [EXPLICIT])])

    def test_a_right_one_stays_as_it_is(self) -> None:
        assert put_right(self.RIGHT) == self.RIGHT

    @given(st.data())
    def test_whatever_is_wrong_twice_right_is_once(self, data: st.DataObject) -> None:
        """It meets raw bytes from the network first, so it must not stumble over any."""
        noise = bytearray(self.RIGHT[: data.draw(st.integers(0, len(self.RIGHT)))])
        for _ in range(data.draw(st.integers(0, 5))):
            if noise:
                noise[data.draw(st.integers(0, len(noise) - 1))] = data.draw(st.integers(0, 255))
        once = put_right(noise)
        assert put_right(once) == once


class TestFileMeta:
    def test_pydicom_reads_it(self) -> None:
        data = file_meta(
            sop_class_uid=CTImageStorage,
            sop_instance_uid="1.2.3",
            transfer_syntax_uid=EXPLICIT,
            source_ae_title="MODALITY",
        )
        meta = pydicom.dcmread(BytesIO(data)).file_meta
        assert meta.FileMetaInformationGroupLength == len(data) - 144
        assert meta.FileMetaInformationVersion == b"\0\1"
        assert meta.MediaStorageSOPClassUID == CTImageStorage
        assert meta.MediaStorageSOPInstanceUID == "1.2.3"
        assert meta.TransferSyntaxUID == EXPLICIT
        assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert meta.ImplementationClassUID.is_valid
        assert meta.SourceApplicationEntityTitle == "MODALITY"


class TestAdmission:
    def _judge(self, peer: str = "10.1.2.3", **settings: Any) -> Rejection | None:
        return rejection(
            listener(**settings),
            calling_ae_title="CT1 ",
            called_ae_title="AXIOM",
            peer_address=peer,
            application_context="1.2.840.10008.3.1.1.1",
        )

    def test_by_default_everybody_may(self) -> None:
        assert self._judge() is None
        assert self._judge(ae_title="OTHER") is None

    @pytest.mark.parametrize(
        ("settings", "code"),
        [
            ({"allowed_calling_ae_titles": ["CT2", "ct1"]}, (1, 1, 3)),
            ({"require_called_ae_title": True, "ae_title": "OTHER"}, (1, 1, 7)),
            ({"allowed_peers": ["10.2.0.0/16", "::1"]}, (1, 1, 1)),
        ],
    )
    def test_who_may_not_is_told_why(
        self, settings: dict[str, Any], code: tuple[int, int, int]
    ) -> None:
        refused = self._judge(**settings)
        assert refused is not None
        assert (refused.result, refused.source, refused.reason) == code

    @pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3"])
    def test_a_peer_within_a_network_may(self, peer: str) -> None:
        assert self._judge(peer, allowed_peers=["10.1.0.0/16"]) is None

    def test_ipv6_networks_hold_too(self) -> None:
        assert self._judge("fe80::1%eth0", allowed_peers=["fe80::/10"]) is None
        assert self._judge("fd00::1", allowed_peers=["fe80::/10"]) is not None
