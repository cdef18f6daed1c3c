"""The program `deepmac`: its commands join `app`, and `main` ends the process with a code and one line."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Protocol, cast

import typer

from deepmac_distill import __version__
from deepmac_distill.cli import joining
from deepmac_distill.errors import DistillError, RunError
from deepmac_distill.machine import refused_by_the_machine
from deepmac_distill.printable import printable, shortened
from deepmac_distill.stopping import Stopped, signals_raise
from deepmac_distill.storage.copies import with_uris
from deepmac_distill.storage.location import require_written_out

NAME = "deepmac"
RENAMED = {  # flags of earlier versions, refused with the name they have now
    "--teacher": "--model",
    "--weights": "--model",
    "--pipeline": "--config",
}
# Typer carries a copy of click or imports it, by its version; this is the class of either.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Masks for all your boxes, and a fast detector-segmenter for every class.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process: 0 done, 1 a bug, 2 the user must fix something, 3 a gate failed."""
    _open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if f"_{NAME}_COMPLETE".upper() in os.environ:  # the shell asks; Typer answers
        app(given, prog_name=NAME)
    sys.exit(_run(given or ["--help"]))


def _run(arguments: list[str]) -> int:
    """Invoke without click's own end, which makes a closed pipe an error and frames a mistake."""
    try:
        _require_working_directory()
        joining.place_here(arguments[0])
        for word in arguments:
            require_written_out(word)
        with signals_raise():
            _invoke(arguments)
        sys.stdout.flush()
        joining.part()
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:  # `| head` has read enough
        return 0
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # rich's answer to the same
            return 0
        raise
    except KeyboardInterrupt as stop:
        return _stopped(stop, "--force" in arguments)
    except DistillError as error:
        return _refused(str(error), error.exit_code)
    except USAGE_ERROR as error:
        return _refused(_in_one_line(cast(_Usage, error)), 2)
    except Exception as error:
        if (message := refused_by_the_machine(error)) is None:
            raise
        return _refused(message, 2)
    finally:
        _drop_what_cannot_be_printed()
    return 0


def _require_working_directory() -> None:
    """Libraries look for their own files there, and end the process where it is gone."""
    try:
        Path.cwd()
    except OSError as error:
        raise RunError(f"working directory: {error.strerror}; expected one that is there (cd)") from None


def _invoke(arguments: list[str]) -> None:
    program = typer.main.get_command(app)
    with program.make_context(NAME, arguments) as context:
        program.invoke(context)


def _refused(message: str, code: int) -> int:
    if joining.reports(message):
        with suppress(OSError):  # of an error with a full stderr nobody can hear
            line = shortened(printable(with_uris(message)))
            print(f"{NAME}: {joining.called()}{line}", file=sys.stderr, flush=True)
    return code


def _open_streams() -> None:
    """Streams that are closed lead nowhere, and characters that a stream lacks are written as escapes.

    A closed one is opened first: its number would go to the next file that is opened.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_what_cannot_be_printed() -> None:
    """Where stdout is closed or full, Python would complain once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped(stop: KeyboardInterrupt, forced: bool) -> int:
    """How to go on, and the code that a shell gives a program which a signal ended."""
    number, kept = (stop.number, stop.kept) if isinstance(stop, Stopped) else (signal.SIGINT, "")
    ended = f"stopped, {kept}" if kept else "stopped"
    without = " without --force" if forced else ""
    return _refused(f"{ended}; the same command{without} goes on from what is done", 128 + number)


class _Context(Protocol):
    command_path: str


class _Usage(Protocol):
    """What a usage error of either click has."""

    ctx: _Context | None

    def format_message(self) -> str: ...


def _in_one_line(error: _Usage) -> str:
    """What is wrong with the words of a command, in which command, and where its words are listed."""
    command = error.ctx.command_path if error.ctx else NAME
    where = "".join(f"{word}: " for word in command.split()[1:])
    option = getattr(error, "option_name", None)
    if option in RENAMED:
        return f"{where}{option}: it is now called {RENAMED[option]}"
    message = " ".join(error.format_message().split()).removesuffix(".")
    return f"{where}{message[:1].lower()}{message[1:]}; see {command} --help"
