"""The files that an image of the Dockerfile would hold besides its base and its environment.

Without an engine that builds images this shows what would be in one: run from such a tree, an
entry point that needs a file which is not copied fails here as it would there.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
_CONTINUED = re.compile(r"\\\n\s*")


@dataclass(slots=True)
class Stage:
    """One stage of the Dockerfile: from `FROM` to the next."""

    name: str
    base: str
    copies: list[tuple[str, Sequence[str], str]] = field(default_factory=list)  # from, what, where
    environment: dict[str, str] = field(default_factory=dict)
    entry_point: Sequence[str] = ()
    user: str = ""
    workdir: str = ""


def stages(text: str) -> Mapping[str, Stage]:
    """The stages of a Dockerfile by name, in their order."""
    found: dict[str, Stage] = {}
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    for line in _CONTINUED.sub(" ", "".join(lines)).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        match instruction:
            case "FROM":
                base, _, name = rest.partition(" AS ")
                parent = found.get(base)
                found[name] = Stage(
                    name,
                    base,
                    environment=dict(parent.environment) if parent else {},
                    workdir=parent.workdir if parent else "",
                )
                current = found[name]
            case "COPY":
                words = shlex.split(rest)
                came_from = ""
                if words[0].startswith("--from="):
                    came_from = words.pop(0).removeprefix("--from=")
                current.copies.append((came_from, words[:-1], words[-1]))
            case "ENV":
                for word in shlex.split(rest):
                    name, _, value = word.partition("=")
                    current.environment[name] = value
            case "USER":
                current.user = rest
            case "WORKDIR":
                current.workdir = rest
            case "ENTRYPOINT":
                current.entry_point = json.loads(rest)
    return found


def build(target: str, into: Path, root: Path = ROOT) -> Stage:
    """Copy what `--target target` would hold of the repository into the folder `into`.

    Paths of the image are below `into`. Returns the stage, which says how the image starts.
    """
    all_stages = stages((root / "Dockerfile").read_text(encoding="utf-8"))
    _copy(target, all_stages, into, Ignored.read(root / ".dockerignore"), root)
    return all_stages[target]


def _copy(
    name: str, all_stages: Mapping[str, Stage], into: Path, ignored: Ignored, root: Path
) -> None:
    stage = all_stages[name]
    if stage.base in all_stages:
        _copy(stage.base, all_stages, into, ignored, root)
    for came_from, sources, where in stage.copies:
        if came_from:
            # A tree that another stage has made; of it we copy what comes from the repository.
            _copy(came_from, all_stages, into, ignored, root)
            continue
        place = PurePosixPath(stage.workdir) / where
        for source in sources:
            for file in _files(root / source):
                relative = file.relative_to(root)
                if ignored.leaves_out(relative.as_posix()):
                    continue
                is_folder = (root / source).is_dir()
                tail = file.relative_to(root / source) if is_folder else Path(file.name)
                to = into / str(place).lstrip("/") / tail
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, to)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in sorted(names))


class Ignored:
    """A .dockerignore: the last line that fits a path, or a folder that it is in, decides."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = [line for line in lines if line and not line.startswith("#")]

    @classmethod
    def read(cls, path: Path) -> Ignored:
        """The file's lines."""
        return cls([line.strip() for line in path.read_text(encoding="utf-8").splitlines()])

    def leaves_out(self, path: str) -> bool:
        """True if the path, from the root with `/`, is not sent to the builder."""
        decided = False
        parents = [path, *(str(parent) for parent in PurePosixPath(path).parents)]
        for line in self._lines:
            pattern = line.removeprefix("!").strip("/")
            if any(_fits(one, pattern) for one in parents):
                decided = not line.startswith("!")
        return decided


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(PurePosixPath(path).name, pattern[3:])
    # `*` stands for no `/`.
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
