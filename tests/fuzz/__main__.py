"""`python -m tests.fuzz [NAME ...] [--seconds N]`: atheris on each target, or on those named.

Exit status 1 if anything was found; what it was is below `found/NAME/` and printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["shared", "scp_gateway", "yaml", "zipfile"]):
    from tests.fuzz.targets import MOST_BYTES, TARGETS

FOUND = Path(__file__).parent / "found"

# No input may take longer, or more memory than that beside what the modules take.
_TIMEOUT_S = 10
_MOST_MIB = 1024


def main() -> int:
    """Fuzz one target here, or several in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", choices=[*TARGETS, []], metavar="NAME")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    arguments = parser.parse_args()
    names = arguments.names or [*TARGETS]
    if len(names) == 1:
        fuzz(names[0], arguments.seconds)
    failed = [name for name in names if _in_its_own_process(name, arguments.seconds)]
    print(f"{len(names) - len(failed)} targets hold; fell: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def fuzz(name: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    # pydicom has an opinion about most of what is invented here.
    warnings.simplefilter("ignore")
    target = TARGETS[name]
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        for number, seed in enumerate(target.seeds()):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-timeout={_TIMEOUT_S}",
            f"-rss_limit_mb={_MOST_MIB}",
            f"-max_len={MOST_BYTES}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
        ]
        atheris.Setup([name, *options, folder, str(found)], target.run)
        atheris.Fuzz()


def _in_its_own_process(name: str, seconds: int) -> int:
    print(f"---- {name}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
