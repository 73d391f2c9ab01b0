"""docs/cost.md says what is counted today, and the model does what it says."""

from __future__ import annotations

import pytest

from infra.cost.model import PerInstance, dollars_per_million, gateways, prices
from infra.cost.page import page
from infra.images.tree import ROOT


def test_the_page_is_what_python_m_infra_cost_makes() -> None:
    assert (ROOT / "docs" / "cost.md").read_text(encoding="utf-8") == page()


class TestModel:
    def test_a_small_message_is_paid_for_as_a_thousand_bytes(self) -> None:
        tiny, small = (
            dollars_per_million([PerInstance("gateway", {}, 1, size, 0)], 1e6)
            for size in (10, 1000)
        )
        assert tiny == small
        assert tiny["gateway"]["Pub/Sub"] > 0

    def test_the_gateway_is_not_paid_for_by_what_it_does(self) -> None:
        assert dollars_per_million([PerInstance("gateway", {}, 0, 0, 10)], 1e6)["gateway"][
            "Cloud Run"
        ] == pytest.approx(0)

    def test_a_process_waits_more_where_instances_are_few(self) -> None:
        stage = PerInstance("deliver_instance", {}, 0, 0, 10)
        per_million = [
            dollars_per_million([stage], volume)["deliver_instance"]["Cloud Run"]
            for volume in (1e4, 1e6, 1e8)
        ]
        assert per_million == sorted(per_million, reverse=True)

    def test_there_is_always_a_gateway(self) -> None:
        assert gateways(1) == 1
        assert gateways(1e8) > 50

    def test_prices_say_when_and_from_where(self) -> None:
        found = prices()
        assert found["as_of"]
        assert set(found["sources"]) <= set(found)
