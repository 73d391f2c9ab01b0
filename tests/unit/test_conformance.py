"""The Conformance Statement says what the gateway's tables say."""

from __future__ import annotations

from scp_gateway.conformance import statement
from tests.conftest import ROOT


def test_the_page_is_what_the_tables_say() -> None:
    """`python -m scp_gateway.conformance > docs/conformance.md` mends it."""
    assert (ROOT / "docs" / "conformance.md").read_text() == statement()
