"""The virtual environment that `./axiom` runs in: made on first use, checked in a blink after that.

Runs in the Python that the user has, before anything is installed, so it imports the standard
library alone, and of that little until something is to be installed.

An environment is good when its stamp says that it holds what the lock file asks for. The file that
launchers lock is empty unless an installation is going on or was interrupted; after an interruption
the environment is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

# Commands that need the checks and the test peers besides what Axiom Flow imports itself.
DEVELOPMENT_COMMANDS = frozenset({"test", "bench", "rehearse"})

_PACKAGES = ("functions", "infra", "scp_gateway", "shared")
_UNFINISHED = "installing\n"

# Prints "ok" if every pinned distribution is there. Not under `with`, not importing ours: it runs
# in an environment that nothing is known of.
_VERIFY = r"""
import importlib.metadata, re, sys
for line in open(sys.argv[1], encoding="utf-8"):
    pinned = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
    if pinned and importlib.metadata.version(pinned[1]) != pinned[2]:
        sys.exit(1)
print("ok" if sys.version_info >= (3, 11) else "old")
"""


class InstallationError(Exception):
    """The environment cannot be made; args: what to tell the user."""


def run_command_line(root: str, arguments: Sequence[str]) -> NoReturn:
    """Become the command line, in an environment that holds what it needs."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    development = command in DEVELOPMENT_COMMANDS and "--help" not in arguments
    try:
        python = ready_python(Path(root), development=development)
    except InstallationError as error:
        sys.exit(f"axiom: {error}")
    except KeyboardInterrupt:
        print("axiom: interrupted; the next start installs again", file=sys.stderr)
        sys.exit(130)
    environment = dict(os.environ, PYTHONPATH=root, PYTHONSAFEPATH="1")
    environment.pop("PYTHONHOME", None)
    os.execve(python, [python, "-m", "infra.local.cli", *arguments], environment)  # noqa: S606


def ready_python(root: Path, *, development: bool) -> str:
    """The path of the environment's Python, after installing whatever is missing.

    Raises: InstallationError.
    """
    locks = [root / "requirements.txt"]
    if development:
        locks += [root / f"requirements-{name}.txt" for name in ("cloud", "gemini", "dev")]
    beside = Environment(root / ".venv")
    if beside.holds(locks):
        return beside.python
    environment = beside if os.access(root, os.W_OK) else Environment(_cache_folder(root) / ".venv")
    if not environment.holds(locks):
        environment.install(locks)
    return environment.python


def _cache_folder(root: Path) -> Path:
    """Where the environment of a read-only checkout goes: one folder for each checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    return Path(cache) / "axiom-flow" / name


class Environment:
    """One virtual environment, perhaps not made yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "bin" / "python")

    def holds(self, locks: Sequence[Path]) -> bool:
        """True if the environment runs and was stamped for each of these lock files."""
        try:
            return all(
                self._stamp_file(lock).read_text(encoding="utf-8") == self._stamp(lock)
                for lock in locks
            )
        except OSError:
            return False

    def install(self, locks: Sequence[Path]) -> None:
        """Make it hold them; of several processes that ask, one works and the others wait.

        Raises: InstallationError, after which the next try starts afresh.
        """
        with self._locked() as lock_file:
            if self.holds(locks):
                return
            interrupted = bool(lock_file.read())
            if interrupted or not self._runs():
                self._mark(lock_file, _UNFINISHED)
                self._make()
            missing = [lock for lock in locks if not self._verified(lock)]
            if missing:
                self._mark(lock_file, _UNFINISHED)
                self._add(missing)
            for lock in locks:
                self._write_stamp(lock)
            self._mark(lock_file, "")

    def _stamp(self, lock: Path) -> str:
        # The real Python's path and time tell when the system replaced the one we were made with.
        real = os.path.realpath(self.python)
        changed_ns = os.stat(real).st_mtime_ns
        return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {real} {changed_ns}\n"

    def _stamp_file(self, lock: Path) -> Path:
        return self.folder / f"axiom-{lock.stem}.stamp"

    def _write_stamp(self, lock: Path) -> None:
        stamp = self._stamp_file(lock)
        fresh = stamp.with_suffix(".new")
        fresh.write_text(self._stamp(lock), encoding="utf-8")
        fresh.replace(stamp)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        import fcntl

        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock_file = self.folder.with_name(self.folder.name + ".lock").open("a+")
        except OSError as error:
            raise InstallationError(f"cannot make {self.folder}: {error.strerror}") from None
        with lock_file:
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("waiting for another axiom that is installing")
                fcntl.flock(lock_file, fcntl.LOCK_EX)
            lock_file.seek(0)
            yield lock_file

    @staticmethod
    def _mark(lock_file: IO[str], text: str) -> None:
        lock_file.truncate(0)
        lock_file.write(text)
        lock_file.flush()

    def _runs(self) -> bool:
        check = "import sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"
        return _run([self.python, "-I", "-c", check]).ok

    def _verified(self, lock: Path) -> bool:
        return _run([self.python, "-I", "-c", _VERIFY, str(lock)]).output.strip() == "ok"

    def _make(self) -> None:
        import shutil

        if self.folder.is_symlink():
            self.folder.unlink()
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        _say(f"first start: making a Python environment in {self.folder}")
        if shutil.which("uv"):
            made = _run(["uv", "venv", "--quiet", "--python", sys.executable, str(self.folder)])
            if made.ok:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
        made = _run([sys.executable, "-m", "venv", str(self.folder)])
        if not made.ok:
            raise InstallationError(
                f"cannot make a virtual environment:\n{made.output}\n"
                "On Debian and Ubuntu: apt install python3-venv. Or install uv."
            )

    def _add(self, locks: Sequence[Path]) -> None:
        import shutil
        import time

        started_s = time.monotonic()
        names = [argument for lock in locks for argument in ("-r", str(lock))]
        installers = []
        if shutil.which("uv"):
            uv = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", self.python]
            installers.append(("uv", [*uv, *names]))
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        installers.append(("pip", [*pip, "--no-deps", *names]))
        failures = []
        for name, command in installers:
            _say(f"installing {' and '.join(lock.name for lock in locks)} with {name} ...")
            if name == "pip" and not _run([self.python, "-m", "pip", "--version"]).ok:
                _run([self.python, "-m", "ensurepip"])
            installed = _run(command)
            if installed.ok:
                # uv does not, and where the environment forbids it, neither does Python itself.
                # Our own packages too: the first start of each process is not to pay for it.
                ours = [str(locks[0].parent / name) for name in _PACKAGES]
                folders = [str(self.folder / "lib"), *ours]
                _run([self.python, "-m", "compileall", "-q", "-j", "0", *folders])
                _say(f"ready after {time.monotonic() - started_s:.0f} s")
                return
            failures.append(f"{name}: {installed.output.strip()}")
        raise InstallationError("cannot install the requirements\n" + "\n".join(failures))


class _Ran:
    """How a program ended; one that is not there counts as one that failed."""

    def __init__(self, ok: bool, output: str) -> None:
        self.ok, self.output = ok, output


def _run(command: Sequence[str]) -> _Ran:
    import subprocess

    try:
        ran = subprocess.run(  # noqa: S603 (the words are ours and the user's paths)
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return _Ran(False, str(error))
    return _Ran(ran.returncode == 0, ran.stdout + ran.stderr)


def _say(text: str) -> None:
    print(f"axiom: {text}", file=sys.stderr, flush=True)
