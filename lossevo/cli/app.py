"""The ``lossevo`` command."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, NoReturn

import typer

from lossevo import __version__
from lossevo.cli.analyze import analyze
from lossevo.cli.data import data
from lossevo.cli.evaluate import evaluate
from lossevo.cli.export import export
from lossevo.cli.hof import hof
from lossevo.cli.losses import losses
from lossevo.cli.metalearn import metalearn
from lossevo.cli.search import search
from lossevo.cli.terminal import guarded, one_line
from lossevo.cli.tune import tune
from lossevo.errors import LossevoError, is_text, shown

app = typer.Typer(
    help="Find the loss function that trains the best 3D U-Net for your segmentation task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with 'lossevo search': it needs no data, uses an embedded phantom and takes a few minutes.",
)
for command in (search, metalearn, tune, hof, export, evaluate, analyze):
    app.command(no_args_is_help=command not in (search, metalearn))(command)
app.add_typer(losses, name="losses")
app.add_typer(data, name="data")


_AGAIN_S = 0.2


def _version(asked: bool) -> None:
    if asked:
        print(f"lossevo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


def _stop_like_ctrl_c() -> None:
    """Batch systems, containers and closed terminals stop a command as Ctrl-C does; ``nohup`` stays in force."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # some send it twice, and the second must not break the ending
        raise KeyboardInterrupt(number)

    def again(dropped: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised inside a destructor or a callback, Ray's start for example: ask again later."""
        if not isinstance(dropped.exc_value, KeyboardInterrupt) or not hasattr(signal, "pthread_kill"):
            sys.__unraisablehook__(dropped)
            return
        number = next(iter(dropped.exc_value.args), signal.SIGINT)
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, interrupt)
        later = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, number))
        later.daemon = True
        later.start()

    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = again
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def _check_arguments() -> None:
    for argument in sys.argv[1:]:
        if "\0" in argument:
            raise LossevoError(f"{shown(argument)} holds a NUL character; no name may")
        if not is_text(argument):
            raise LossevoError(f"{argument}: not UTF-8; rename the file or folder, as all names are written in UTF-8")


def main() -> None:
    """Run the command line; a mistake that the user can mend is one line and exit status 2."""
    _stop_like_ctrl_c()
    try:
        with guarded():
            _check_arguments()
            app()
    except LossevoError as mistake:
        _refuse(mistake)
    except UnicodeEncodeError as problem:
        # A name that came by another way than the command line and the data set, which are checked.
        name = one_line(problem.object[:200])
        _refuse(f"{name!r}: cannot be written as {problem.encoding}; rename it in UTF-8")
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone; Python would complain once more when it flushes at exit.
        sys.stdout = None
        raise SystemExit(0) from None
    except OSError as problem:
        # What the file system refuses names a file, and the user can mend it; the output's disk has no name.
        if problem.filename is not None:
            hint = _HINTS.get(problem.errno or 0, "look at this name, its folder and your rights there")
            _refuse(f"{problem.filename}: {problem.strerror or problem}; {hint}")
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.stdout = None
        _refuse(f"the output cannot be written: {problem.strerror}; free space there")


_HINTS = {
    errno.ENAMETOOLONG: "give a shorter name, of at most 255 bytes",
    errno.ENOTDIR: "a part of this path is a file; give another one",
    errno.EACCES: "get the right to it, or give another place",
    errno.EPERM: "get the right to it, or give another place",
    errno.EROFS: "give a place that can be written",
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.ENOENT: "look at the path",
}
"""What to do about errors of the file system."""


def _refuse(message: object) -> NoReturn:
    print("lossevo:", one_line(message), file=sys.stderr)
    raise SystemExit(2) from None
