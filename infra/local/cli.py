"""The command line: `axiom COMMAND`.

Each command's module is imported when the command runs, so that help and version cost nothing.
Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

# What `axiom --help` lists, in this order; the module of a command is its name in `commands`.
COMMANDS = {
    "demo": "Show the whole flow with real Instances, and prove it.",
    "up": "Run the whole system until Ctrl-C.",
    "health": "Say whether every part of the running system works, and deliveries go through.",
    "send": "Send files and folders over C-STORE, as a modality would.",
    "keys": "Make, list, rotate and revoke API keys.",
    "config": "Apply and export the configuration; compare and restore versions.",
    "rules": "Test, check, try out and explain rulesets.",
    "destinations": "List and show destinations; ask one whether it is there.",
    "sources": "List and show the sources that are polled; poll one now.",
    "pull": "Fetch Studies from a source on demand; pause and resume.",
    "crosswalk": "Try crosswalk maps, copy their tables, show how they do.",
    "standardize": "Measure how well raw values become standard terms.",
    "instances": "List and show what was received, and where it went.",
    "studies": "List and show what waits for its Study, and end the waiting.",
    "exceptions": "List, show, retry and archive what could not be done.",
    "reconcile": "Compare what came with what a destination holds.",
    "test": "Run every check and test.",
    "bench": "Measure against other routers and plain libraries.",
    "rehearse": "Run the cloud's functions on Google's emulators; lose nothing.",
    "torture": "Kill, starve and deceive the system; show that nothing is lost.",
}
# Those that ask no system by its API.
HERE_ALONE = frozenset({"demo", "up", "send", "test", "bench", "rehearse", "torture"})

_SETTINGS = """\b
Settings are environment variables:
  AXIOM_HOME         everything the system keeps    [./.axiom]
  AXIOM_HTTP_PORT    API and DICOMweb; 0: any free  [8080]
  AXIOM_DIMSE_PORT   C-STORE; 0: any free           [11112]
  AXIOM_AE_TITLE     our AE Title                   [AXIOM]
  AXIOM_HTTP_HOST    address to listen on           [127.0.0.1]
  AXIOM_DIMSE_HOST   address to listen on           [127.0.0.1]
  AXIOM_API_KEY      the admin API key              [made and shown at first start]
  AXIOM_URL          as --url; AXIOM_API_KEY is the key there, and
                     AXIOM_IDENTITY_TOKEN what Google's proxies ask for
"""


class _Commands(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"infra.local.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"axiom {version()}")
        ctx.exit()


def version() -> str:
    """The version that pyproject.toml states."""
    import tomllib

    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    with project.open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


@click.group(cls=_Commands, epilog=_SETTINGS)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version.",
)  # fmt: skip
@click.option(
    "--url", envvar="AXIOM_URL", metavar="URL",
    help="Ask the system that runs there, by its API, and not AXIOM_HOME.",
)  # fmt: skip
@click.pass_context
def axiom(context: click.Context, url: str | None) -> None:
    """Axiom Flow: receives DICOM, checks, changes and routes it, and never loses an Instance.

    Start with `axiom demo`. Every command takes --help and --json.
    """
    was_said = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    if was_said and context.invoked_subcommand in HERE_ALONE:
        raise click.UsageError(f"`axiom {context.invoked_subcommand}` works here alone: no --url.")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in options
    try:
        ordered = _url_first(words, len(options))
        status = axiom.main(ordered, prog_name="axiom", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        if as_json:
            _print_error(error.format_message(), as_json=True, code="usage")
        else:
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; what Python would flush at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _explain(error, as_json)


def _url_first(words: list[str], end: int) -> list[str]:
    """The words with `--url URL` before the command, wherever it stood."""
    for at, word in enumerate(words[:end]):
        if word.startswith("--url="):
            return [word, *words[:at], *words[at + 1 :]]
        if word == "--url":
            return [*words[at : at + 2], *words[:at], *words[at + 2 :]]
    return words


def _explain(error: Exception, as_json: bool) -> int:
    from infra.local.terminal import CommandFailedError
    from shared.errors import AxiomError, InvalidConfigurationError

    # Not imported for commands that ask no API.
    problems = sys.modules.get("shared.client.problems")
    if problems is not None and isinstance(error, problems.ApiError):
        _print_error(
            error.detail, as_json=as_json, code=error.code, hint=error.hint, faults=error.faults
        )
    elif problems is not None and isinstance(error, problems.ApiUnreachableError):
        hint = "Does it run, and is the URL its own?"
        _print_error(str(error), as_json=as_json, code="unreachable", hint=hint)
    elif isinstance(error, CommandFailedError):
        _print_error(error.message, as_json=as_json, code=error.code, hint=error.hint)
    elif isinstance(error, InvalidConfigurationError):
        count = len(error.faults)
        message = f"the configuration would have {count} fault{'s' * (count != 1)}"
        _print_error(
            message, as_json=as_json, code=error.code, hint=error.hint, faults=error.faults
        )
    elif isinstance(error, AxiomError):
        _print_error(str(error), as_json=as_json, code=error.code, hint=error.hint)
    else:
        if as_json:
            hint = "This is a fault of ours; standard error has the traceback."
            _print_error(type(error).__name__, as_json=True, code="bug", hint=hint)
        raise error
    return 1


def _print_error(message: str, **how: Any) -> None:
    from infra.local.terminal import print_error

    print_error(message, **how)


if __name__ == "__main__":
    sys.exit(main())
