"""Associations that we ask for, in a process with many open files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from shared.adapters.requestor import Requestor
from tests.gateway import MemoryReceiver, running_gateway

_SELECT_ENDS_AT = 1024


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """Every file descriptor that select(2) knows is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    taken: list[int] = []
    try:
        while not taken or taken[-1] < _SELECT_ENDS_AT:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def gateway_port() -> Iterator[int]:
    with running_gateway(MemoryReceiver()) as (_, port):
        yield port


def test_an_association_stands_however_many_files_are_open(
    gateway_port: int, many_open_files: None
) -> None:
    ae = Requestor("ASKER", timeout_s=30)
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", gateway_port, ae_title="TEST")
    try:
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000
    finally:
        association.release()
