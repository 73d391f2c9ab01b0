"""Measure the rule engine against the naive way: `Dataset.get` of pydicom for each condition.

The header is that of a real CT (CT_small.dcm of the pydicom wheel). Reading the file is left out
on both sides; each round starts from a freshly read Dataset and a freshly parsed Header, so that
decoding Values counts on both. Both must find the same rules.
"""

from __future__ import annotations

import io
import random
import re
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.multival import MultiValue

from shared.dicom.header import Header
from shared.rules import Facts, Program, compile_rulesets, parse_ruleset

RULES: Final = (10, 100, 1000)
CONDITIONS_PER_RULE: Final = 5
_SEED: Final = 7
_MAX_ROUNDS: Final = 1_000
_BATCH: Final = 50  # Instances in a row, as a stage evaluates them
_NAIVE_BATCH: Final = 5

Condition = tuple[str, str, Any]  # operator, keyword, operand


def run(rounds: int) -> dict[str, Any]:
    """Medians in microseconds for one Instance, by the number of rules, and their ratios.

    "ratio_vs_naive_1000" is naive time by our time at 1,000 rules of 5 conditions.
    """
    data = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    facts = _facts()
    results: dict[str, Any] = {
        "rounds": min(rounds, _MAX_ROUNDS),
        "conditions_per_rule": CONDITIONS_PER_RULE,
    }
    results["parse_header_us"] = _median_us(results["rounds"], lambda: data, Header.parse)
    results["read_dataset_us"] = _median_us(results["rounds"], lambda: data, _dataset)
    for count in RULES:
        rules = make_rules(count)
        started = time.perf_counter()
        program = compile_rulesets([parse_ruleset(_document(rules))])
        results[f"load_ms_{count}"] = (time.perf_counter() - started) * 1e3
        expected = naive(rules, _dataset(data))
        found = _matched(program, Header.parse(data), facts)
        if found != expected:
            raise AssertionError(f"{len(found)} rules match, the naive way finds {len(expected)}")
        results[f"matching_{count}"] = len(found)
        ours, theirs, ratio = _compare(rules, program, data, facts, results["rounds"])
        results[f"evaluate_us_{count}"] = ours
        results[f"evaluations_per_s_{count}"] = 1e6 / ours
        results[f"naive_us_{count}"] = theirs
        results[f"ratio_vs_naive_{count}"] = ratio
    return results


def make_rules(count: int) -> list[list[Condition]]:
    """A mix such as a site has: a modality, then texts, patterns, numbers and lists."""
    chance = random.Random(_SEED)  # noqa: S311 - the same rules every time
    return [
        [
            ("equals", "Modality", chance.choice(["CT", "CT", "MR", "MG", "US", "CR"])),
            *(_condition(chance) for _ in range(CONDITIONS_PER_RULE - 1)),
        ]
        for _ in range(count)
    ]


def naive(rules: list[list[Condition]], dataset: Dataset) -> list[int]:
    """The numbers of the rules that match, each condition asking the Dataset."""
    return [
        number
        for number, conditions in enumerate(rules)
        if all(
            _holds(operator, _text(dataset.get(key)), wanted)
            for operator, key, wanted in conditions
        )
    ]


def _condition(chance: random.Random) -> Condition:
    kind = chance.random()
    other = chance.randrange(50)
    if kind < 0.3:
        keyword = chance.choice(["Manufacturer", "StationName", "BodyPartExamined", "PatientSex"])
        texts = ["GE MEDICAL SYSTEMS", "CT01_OC0", "CHEST", "O", f"X{other}"]
        return ("equals", keyword, chance.choice(texts))
    if kind < 0.5:
        keyword = chance.choice(
            ["StudyDescription", "SeriesDescription", "ManufacturerModelName", "InstitutionName"]
        )
        return ("contains", keyword, chance.choice(["e+1", "CT", "RHAPSODE", "JFK", f"zz{other}"]))
    if kind < 0.65:
        keyword = chance.choice(["StudyDescription", "PatientID", "InstitutionName"])
        return ("regex", keyword, chance.choice([r"^\dCT\d", r"JFK|UCLA", r"^e\+", f"q{other}$"]))
    if kind < 0.8:
        keyword = chance.choice(["KVP", "SliceThickness", "Rows", "SeriesNumber"])
        return ("gt", keyword, chance.choice([0.5, 1, 100, 500]))
    if kind < 0.9:
        texts = ["GE MEDICAL SYSTEMS", "CHEST", "ABDOMEN", "HEAD", "ACME", "OTHER"]
        keyword = chance.choice(["Manufacturer", "BodyPartExamined"])
        return ("in", keyword, tuple(chance.sample(texts, 3)))
    return (
        "exists",
        chance.choice(["PatientID", "KVP", "ImageType", "StudyDate", "Laterality"]),
        None,
    )


def _document(rules: list[list[Condition]]) -> dict[str, Any]:
    return {
        "name": "bench",
        "execution_mode": "ALL_MATCHES",
        "rules": [
            {
                "name": str(number),
                "conditions": [
                    {"type": f"tag_{operator}", "tag": keyword}
                    | ({} if wanted is None else {"value": wanted})
                    for operator, keyword, wanted in conditions
                ],
            }
            for number, conditions in enumerate(rules)
        ],
    }


def _holds(operator: str, text: str | None, wanted: Any) -> bool:
    if operator == "exists":
        return text is not None
    if text is None:
        return False
    if operator == "equals":
        return bool(text == wanted)
    if operator == "contains":
        return str(wanted) in text
    if operator == "regex":
        return re.search(wanted, text) is not None
    if operator == "in":
        return text in wanted
    try:
        return bool(float(text) > wanted)
    except ValueError:
        return False


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _dataset(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data), stop_before_pixels=True)


def _matched(program: Program, header: Header, facts: Facts) -> list[int]:
    matched = program.evaluate(header, facts).matched_rules
    return [int(name.partition("/")[2]) for name in matched]


def _compare(
    rules: list[list[Condition]], program: Program, data: bytes, facts: Facts, rounds: int
) -> tuple[float, float, float]:
    """Our and the naive median, and the median of the ratios of rounds that took turns."""
    ours, theirs = [], []
    for _ in range(rounds):
        headers = [Header.parse(data) for _ in range(_BATCH)]
        datasets = [_dataset(data) for _ in range(_NAIVE_BATCH)]
        start = time.perf_counter()
        for header in headers:
            program.evaluate(header, facts)
        between = time.perf_counter()
        for dataset in datasets:
            naive(rules, dataset)
        end = time.perf_counter()
        ours.append((between - start) * 1e6 / _BATCH)
        theirs.append((end - between) * 1e6 / _NAIVE_BATCH)
    ratios = [naive_us / our_us for our_us, naive_us in zip(ours, theirs, strict=True)]
    return statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


def _median_us(rounds: int, prepare: Callable[[], Any], measured: Callable[[Any], Any]) -> float:
    times = []
    for _ in range(rounds):
        subject = prepare()
        started = time.perf_counter()
        measured(subject)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _facts() -> Facts:
    return Facts(
        source_type="dimse",
        source_name="main",
        calling_ae_title="CT01",
        called_ae_title="AXIOM",
        peer_address="10.0.0.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        size=39_205,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
