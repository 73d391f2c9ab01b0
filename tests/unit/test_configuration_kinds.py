"""The table of kinds: whoever adds one has it everywhere."""

from __future__ import annotations

from shared.config.entities import Configuration
from shared.config.kinds import KIND_NAMES, KINDS


def test_every_part_of_the_configuration_but_its_settings_is_a_kind() -> None:
    assert {*KIND_NAMES, "settings"} == set(Configuration.model_fields)


def test_no_two_kinds_share_a_path_or_a_word() -> None:
    paths = [path for kind in KINDS for path in kind.paths]
    assert len(paths) == len(set(paths))
    for words in ([kind.noun for kind in KINDS], [kind.title for kind in KINDS]):
        assert len(words) == len(set(words))
