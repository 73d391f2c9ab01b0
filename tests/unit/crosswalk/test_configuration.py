"""What may be said of crosswalks, and that everything wrong is said at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.config.crosswalks import CrosswalkMap, Transformation
from shared.errors import InvalidConfigurationError, SecretMissingError
from shared.rules import parse_ruleset
from tests.unit.crosswalk.site import Site, new_ids

# What could lead out of the parentheses that a query is put in.
PIECES = ("SELECT", "(", ")", "'", '"', ";", "a", ":old_id", "[", "]", "`")
POSTGRESQL = {
    "name": "ris",
    "type": "postgresql",
    "host": "db.example.org",
    "database": "ris",
    "credentials": {"username": "axiom", "password": "in-clear"},
}


def ruleset(**action: Any) -> dict[str, Any]:
    asks = {"type": "crosswalk", "map": "new-ids", "set": {"PatientID": "new_id"}, **action}
    return {"name": "r", "rules": [{"name": "ids", "actions": [asks]}]}


def faults(site: Site, **document: Any) -> dict[str, str]:
    with pytest.raises(InvalidConfigurationError) as caught:
        site.configuration.apply(document, by="test")
    return {fault.path: fault.message for fault in caught.value.faults}


class TestSources:
    def test_a_password_in_clear_is_moved_to_the_secret_store(self, site: Site) -> None:
        site.has(POSTGRESQL)
        stored = site.configuration.read("crosswalk_sources", "ris")
        assert stored["credentials"] == {
            "username": "axiom",
            "password_secret": "crosswalk-source-ris-password",
        }
        assert site.secrets.get("crosswalk-source-ris-password") == "in-clear"
        with pytest.raises(SecretMissingError):
            site.secrets.get("destination-ris-password")

    def test_a_wrong_one_is_told_field_by_field(self, site: Site) -> None:
        wrong = {
            **POSTGRESQL,
            "credentials": {"username": "a", "token": "t"},
            "prot": 1,
        }
        lost = {"name": "ids", "type": "csv", "path": "../../etc/passwd", "encoding": "klingon"}
        verified = {**POSTGRESQL, "name": "his", "type": "mssql", "tls": "verify"}
        found = faults(site, crosswalk_sources=[wrong, lost, verified])
        assert "crosswalk_sources[0].prot" in found
        assert "upwards" in found["crosswalk_sources[1].path"]
        assert "crosswalk_sources[1].encoding" in found
        assert "not supported for mssql" in found["crosswalk_sources[2]"]

    def test_one_that_a_map_uses_stays(self, site: Site) -> None:
        site.has(POSTGRESQL, new_ids())
        with pytest.raises(InvalidConfigurationError, match="no crosswalk source 'ris'"):
            site.configuration.delete("crosswalk_sources", "ris", by="test")


class TestMaps:
    def test_name_a_source_that_is_there(self, site: Site) -> None:
        found = faults(site, crosswalk_sources=[POSTGRESQL], crosswalk_maps=[new_ids(source="rsi")])
        assert found == {"crosswalk_maps[0].source": "there is no crosswalk source 'rsi'"}

    def test_ask_a_table_or_a_query_but_of_csv(self, site: Site) -> None:
        csv = {"name": "file", "type": "csv", "path": "ids.csv"}
        found = faults(
            site,
            crosswalk_sources=[POSTGRESQL, csv],
            crosswalk_maps=[
                new_ids(name="neither", table=None),
                new_ids(name="csv", source="file", sync={"interval_s": 60}),
                new_ids(name="both", query="SELECT new_id FROM ids WHERE old_id = :old_id"),
            ],
        )
        assert found.keys() == {
            "crosswalk_maps[0].table",
            "crosswalk_maps[1].table",
            "crosswalk_maps[1].sync",
            "crosswalk_maps[2]",
        }

    @pytest.mark.parametrize(
        "query",
        [
            "UPDATE ids SET new_id = :old_id",
            "SELECT 1; DROP TABLE ids",
            "SELECT new_id FROM ids",
            "SELECT new_id FROM ids WHERE old_id = ':old_id'",
            "SELECT new_id FROM ids WHERE old_id = :old_id AND site = :site",
            "SELECT new_id FROM ids WHERE old_id = :old_id -- and more",
            "SELECT new_id FROM ids WHERE old_id = :old_id /* and more */",
            "SELECT new_id FROM ids WHERE old_id = :old_id # and more",
            "SELECT new_id INTO other FROM ids WHERE old_id = :old_id",
            "SELECT new_id FROM ids WHERE old_id = :old_id) AS a DROP TABLE ids SELECT (1",
            "SELECT new_id FROM ids WHERE (old_id = :old_id",
            "SELECT new_id FROM ids WHERE site = 'it''s AND old_id = :old_id",
            "SELECT new_id FROM ids WHERE site = '\\' AND old_id = :old_id",
            "SELECT new_id FROM ids WHERE site = $$x$$ AND old_id = :old_id",
            "WITH gone AS (DELETE FROM ids) SELECT new_id FROM ids WHERE old_id = :old_id",
            "(SELECT new_id FROM ids WHERE old_id = :old_id)",
            "",
        ],
    )
    def test_refuse_a_query_that_is_not_one_select(self, site: Site, query: str) -> None:
        asked = new_ids(table=None, query=query)
        assert "crosswalk_maps[0]" in faults(
            site, crosswalk_sources=[POSTGRESQL], crosswalk_maps=[asked]
        )

    @given(query=st.lists(st.sampled_from(PIECES) | st.text()))
    def test_read_any_query_or_refuse_it(self, query: list[str]) -> None:
        """Whatever is let through has its parentheses in balance, so that it stays in ours."""
        text = f"SELECT {' '.join(query)}"
        try:
            found = CrosswalkMap.model_validate(new_ids(table=None, query=text), strict=False)
        except ValidationError:
            return
        assert found.query == text
        assert ";" not in text

    def test_name_each_thing_once(self, site: Site) -> None:
        twice = new_ids(outputs=[{"column": "a", "name": "x"}, {"column": "x"}])
        found = faults(site, crosswalk_sources=[POSTGRESQL], crosswalk_maps=[twice])
        assert "'x' is there twice" in found["crosswalk_maps[0]"]

    def test_tell_misspelt_attributes_and_patterns_by_their_place(self, site: Site) -> None:
        match = [
            {"column": "a", "attribute": "PatientsID"},
            {"column": "b", "transformations": ["strip", {"regex_extract": "("}, "uper"]},
        ]
        found = faults(site, crosswalk_sources=[POSTGRESQL], crosswalk_maps=[new_ids(match=match)])
        assert found.keys() == {
            "crosswalk_maps[0].match[0].attribute",
            "crosswalk_maps[0].match[1].transformations[1].pattern",
            "crosswalk_maps[0].match[1].transformations[2].type",
        }

    def test_are_exported_as_they_were_written(self, site: Site) -> None:
        transformations = ["strip", {"regex_extract": "^A(.*)"}]
        written = new_ids(match=[{"column": "old_id", "transformations": transformations}])
        site.has(POSTGRESQL, written)
        version = site.configuration.current()[0]
        exported = site.configuration.export()
        assert exported["crosswalk_maps"] == [written]
        site.configuration.apply(exported, by="test")
        assert site.configuration.current()[0] == version

    def test_a_slow_pattern_is_none(self) -> None:
        """RE2 takes linear time, and refuses what cannot be had in it."""
        Transformation.model_validate({"regex_extract": "(a+)+b"})
        with pytest.raises(ValidationError):
            Transformation.model_validate({"regex_extract": r"(a)\1"})


class TestRules:
    def test_may_leave_out_what_the_map_matches(self, site: Site) -> None:
        site.has(POSTGRESQL, new_ids())
        site.configuration.apply({"rulesets": [ruleset()]}, by="test")
        maps = {m.name: m.outline for m in site.configuration.get().crosswalk_maps}
        implied = parse_ruleset(ruleset(), crosswalks=maps)
        said = parse_ruleset(ruleset(match={"old_id": "PatientID"}))
        assert implied.rules == said.rules

    @pytest.mark.parametrize(
        ("action", "path", "message"),
        [
            ({"map": "new-idz"}, "map", "there is no crosswalk map 'new-idz'"),
            ({"set": {"PatientID": "newid"}}, "set.PatientID", "'newid' is no output of the map"),
            (
                {"match": {"old_id": "PatientID", "site": "InstitutionName"}},
                "match.site",
                "is no key of the map",
            ),
            ({"match": {"oldid": "PatientID"}}, "match.oldid", "is no key of the map"),
        ],
    )
    def test_are_checked_against_the_maps(
        self, site: Site, action: dict[str, Any], path: str, message: str
    ) -> None:
        site.has(POSTGRESQL, new_ids())
        found = faults(site, rulesets=[ruleset(**action)])
        assert found[f"rulesets[0].rules[0].actions[0].{path}"] == message

    def test_must_say_what_the_map_leaves_open(self, site: Site) -> None:
        site.has(POSTGRESQL, new_ids(match=[{"column": "old_id"}]))
        found = faults(site, rulesets=[ruleset()])
        assert "rulesets[0].rules[0].actions[0].match" in found

    def test_keep_the_map_that_they_use(self, site: Site) -> None:
        site.has(POSTGRESQL, new_ids())
        site.configuration.apply({"rulesets": [ruleset()]}, by="test")
        with pytest.raises(InvalidConfigurationError, match="no crosswalk map"):
            site.configuration.delete("crosswalk_maps", "new-ids", by="test")
