"""docs/deploy.md names what is there; its commands need Google and cannot be run."""

from __future__ import annotations

import re

from infra.images.tree import ROOT, stages

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
CONSOLE = "\n".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S))


def declared(kind: str, file: str) -> set[str]:
    """Names that a Terraform file declares."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return set(re.findall(rf'^{kind} "(\w+)"', text, re.M))


def test_values_are_variables() -> None:
    (values,) = re.findall(r"^```hcl\n# production.tfvars\n(.*?)^```", PAGE, re.M | re.S)
    named = set(re.findall(r"^(\w+) +=", values, re.M))
    named |= set(re.findall(r"^\| [^|]+ \| `(\w+) = ", PAGE, re.M)) | {"protect", "images"}
    assert len(named) > 8
    assert named <= declared("variable", "variables.tf")


def test_outputs_are_there() -> None:
    named = set(re.findall(r"terraform output (?:-\w+ )*(\w+)", PAGE))
    assert len(named) > 5
    assert named <= declared("output", "outputs.tf")


def test_images_are_targets() -> None:
    targets = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    (built,) = re.findall(r"for target in (.+?);", CONSOLE)
    assert set(built.split()) <= set(targets)


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
