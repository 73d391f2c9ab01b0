"""The build's files, held against Cloud Build's schema and what they name."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from infra.images.tree import ROOT, stages

FILES = sorted(ROOT.glob("cloudbuild*.yaml"))

# Of the API's Build, BuildStep and BuildOptions: the fields that a file may have.
_BUILD = {
    "timeout",
    "substitutions",
    "options",
    "steps",
    "images",
    "artifacts",
    "serviceAccount",
} | {
    "tags",
    "logsBucket",
    "availableSecrets",
    "queueTtl",
}
_STEP = {"id", "name", "entrypoint", "args", "env", "dir", "waitFor", "timeout", "secretEnv"} | {
    "volumes",
    "script",
    "allowFailure",
    "automapSubstitutions",
}
_OPTIONS = {"logging", "machineType", "dynamicSubstitutions", "requestedVerifyOption"} | {
    "automapSubstitutions",
    "pool",
    "diskSizeGb",
    "env",
    "substitutionOption",
}
_GIVEN = {"PROJECT_ID", "COMMIT_SHA", "SHORT_SHA", "BUILD_ID", "LOCATION"}
_SUBSTITUTION = re.compile(r"(?<!\$)\$(?:\{(\w+)\}|([A-Z_][A-Z0-9_]*))")


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def build(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each file in turn."""
    found: dict[str, Any] = yaml.safe_load(request.param.read_text(encoding="utf-8"))
    return found


def scripts(build: dict[str, Any]) -> list[str]:
    """The shell scripts of its steps."""
    return [
        step["args"][1]
        for step in build["steps"]
        if step.get("entrypoint") in ("bash", "sh") and len(step["args"]) == 2
    ]


class TestFile:
    def test_has_fields_of_the_schema_alone(self, build: dict[str, Any]) -> None:
        assert set(build) <= _BUILD
        assert set(build["options"]) <= _OPTIONS
        for step in build["steps"]:
            assert set(step) <= _STEP
            assert {"id", "name", "args"} <= set(step)
        assert re.fullmatch(r"\d+s", build["timeout"])

    def test_waits_for_steps_that_come_before(self, build: dict[str, Any]) -> None:
        seen = {"-"}
        for step in build["steps"]:
            assert set(step.get("waitFor", [])) <= seen, step["id"]
            assert step["id"] not in seen
            seen.add(step["id"])

    def test_declares_every_substitution_and_uses_it(self, build: dict[str, Any]) -> None:
        text = yaml.safe_dump({**build, "substitutions": None}, width=10_000)
        values = " ".join(map(str, build["substitutions"].values()))
        used = {a or b for a, b in _SUBSTITUTION.findall(f"{text} {values}")}
        declared = set(build["substitutions"])
        assert used - _GIVEN == declared
        assert all(name.startswith("_") for name in declared)

    def test_has_scripts_that_the_shell_can_read(self, build: dict[str, Any]) -> None:
        found = scripts(build)
        assert found
        for script in found:
            plain = _SUBSTITUTION.sub("value", script).replace("$$", "$")
            ran = subprocess.run(["bash", "-n", "-c", plain], capture_output=True, check=False)
            assert ran.returncode == 0, ran.stderr

    def test_runs_builders_of_one_version(self, build: dict[str, Any]) -> None:
        for step in build["steps"]:
            assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", step["name"]), step["name"]


def test_the_order_is_test_push_scan_plan_approval_apply_smoke_test_roll_back() -> None:
    order = []
    for name in ("cloudbuild.yaml", "cloudbuild.deploy.yaml"):
        order += [step["id"] for step in yaml.safe_load((ROOT / name).read_text())["steps"]]
    wanted = ["test", "push", "scan", "plan", "ask", "apply", "smoke-test", "roll-back"]
    assert [step for step in order if step in wanted] == wanted


def test_both_images_are_targets_of_the_dockerfile() -> None:
    text = (ROOT / "cloudbuild.yaml").read_text()
    targets = stages((ROOT / "Dockerfile").read_text())
    loops = re.findall(r"for target in (.+?);", text)
    assert set(loops) == {"functions gateway"}
    assert {"functions", "gateway"} <= set(targets)


def test_scripts_beside_it_are_shell() -> None:
    script = ROOT / "infra" / "delivery" / "smoke_test.sh"
    ran = subprocess.run(["bash", "-n", script], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "infra/delivery/smoke_test.sh" in (ROOT / "cloudbuild.deploy.yaml").read_text()
