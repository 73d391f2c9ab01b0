"""The rule engine: documents in, decisions out. Pure: no cloud, no network, no database.

`parse_ruleset` reads one document, `check_ruleset` also runs the tests in it, `compile_rulesets`
makes a Program of several, and `Program.evaluate` decides about one Instance from its Header and
the Facts of its reception. docs/rules.md describes the language.
"""

from shared.rules.decision import (
    Ask,
    Decision,
    Facts,
    PlannedDelivery,
    Refusal,
    RuleFailure,
    Verdict,
)
from shared.rules.program import Program, compile_rulesets
from shared.rules.ruleset import ExecutionMode, Rule, RuleSet, parse_ruleset
from shared.rules.selftest import check_ruleset

__all__ = [
    "Ask",
    "Decision",
    "ExecutionMode",
    "Facts",
    "PlannedDelivery",
    "Program",
    "Refusal",
    "Rule",
    "RuleFailure",
    "RuleSet",
    "Verdict",
    "check_ruleset",
    "compile_rulesets",
    "parse_ruleset",
]
