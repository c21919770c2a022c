"""``lossevo data``: check, look at, convert and make data sets."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lossevo.cli import options
from lossevo.cli.terminal import note, print_json, printable
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lossevo.data.case_checks import CaseReport
    from lossevo.data.checks import Report
    from lossevo.data.scan import Problem

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Source = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="A data set's folder, or the CSV or JSON file that lists its cases."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="Its layout: nnunet, spider, verse, bids, … (docs/data.md).", show_default="detected"
    ),
]
Labels = Annotated[
    str,
    typer.Option("--labels", help="separate: one class per structure; merged: one class; or a YAML file with classes."),
]

# So many warnings of one kind are written out; --json has all.
_WARNINGS_SHOWN = 3


@data.callback()
def _group() -> None:
    """Check, look at and convert data sets; make synthetic ones.

    The layouts that are read, and how label values become classes: docs/data.md.

    \b
    Examples:
      lossevo data check DIR                      what it holds, and what is wrong with it
      lossevo data show DIR --out pictures        labels over images
      lossevo data convert DIR nnUNet_raw/Dataset101_Mine
      lossevo data phantom phantom --cases 24     synthetic, for trying things out
      lossevo data cache --clear                  free the disk of prepared volumes
    """


@data.command(no_args_is_help=True)
def check(
    folder: Source,
    format: Format = None,
    labels: Labels = "separate",
    levels: options.Levels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON, and nothing else.")] = False,
) -> None:
    """Say what a data set holds and everything that is wrong with it.

    Reads every file. Errors are what training would refuse and what would leak between patients: missing or damaged
    files, pointers, label values nobody named, images and labels that do not match, NaN, copies. Warnings may be
    meant. The exit status is 2 if there is an error, else 0.

    \b
    Examples:
      lossevo data check DIR
      lossevo data check DIR --levels L1-L5
      lossevo data check DIR --format spider --json > report.json
    """
    from lossevo.cli.tables import console
    from lossevo.data.checks import check as checked
    from lossevo.data.labels import label_scheme
    from lossevo.data.readers import scan

    screen = console(quiet=as_json)
    start = time.perf_counter()
    scheme = label_scheme(labels, levels)
    with _progress(screen, "checking") as progress:
        report = checked(scan(folder, format=format), progress, scheme=scheme)
    if as_json:
        print_json(report.to_document())
    else:
        _print(screen, report, time.perf_counter() - start)
    if report.errors:
        raise typer.Exit(2)


@data.command(no_args_is_help=True)
def show(
    folder: Source,
    out: Annotated[Path | None, typer.Option("--out", help="New folder, or one of an earlier call.")] = None,
    cases: Annotated[
        int | None, typer.Option("--cases", min=1, help="Only the first so many.", show_default="all")
    ] = None,
    format: Format = None,
    labels: Labels = "separate",
    levels: options.Levels = None,
) -> None:
    """Draw labels over images: three planes of every case, and contact sheets of the cohort.

    Writes CASE.png and contact_sheet.png. Planes are those that show most of all classes, in true proportions, the
    patient's front or right to the left.

    \b
    Examples:
      lossevo data show DIR --out pictures
      lossevo data show DIR --out pictures --cases 10 --levels L1-L5
    """
    from lossevo.cli.tables import console
    from lossevo.data.labels import label_scheme
    from lossevo.data.output_folder import refuse_overlap
    from lossevo.data.readers import read_cohort
    from lossevo.report.overlay_folder import write_overlays

    screen = console()
    out = _required(out)
    refuse_overlap(out, folder)
    with _progress(screen, "drawing") as progress:
        cohort = read_cohort(folder, format=format, labels=label_scheme(labels, levels))
        mistakes = write_overlays(cohort, out, cases=cases, progress=progress)
    _say(screen, *(f"Not drawn: {mistake}" for mistake in mistakes))
    drawn = len(cohort.cases[:cases]) - len(mistakes)
    _say(screen, f"Written to {out}: contact_sheet.png and {drawn} cases, each in three planes")


@data.command(no_args_is_help=True)
def convert(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the nnU-Net v2 raw data set.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name in dataset.json.", show_default="the source's")
    ] = None,
    format: Format = None,
    labels: Labels = "separate",
    levels: options.Levels = None,
) -> None:
    """Write a data set as nnU-Net v2 raw.

    Every voxel stays where it is; only axes are brought into the order right, front, head. Axes that are not at right
    angles, which nnU-Net's reader refuses, are made so, and a note says for which cases.
    dataset.json remembers the patients. splits_final.json comes along where the source states folds or patients have
    several cases. OUT appears when it is complete.

    \b
    Examples:
      lossevo data convert SPIDER nnUNet_raw/Dataset101_Spider --levels L1-L5
      lossevo data convert datalist.json nnUNet_raw/Dataset102_Mine --labels merged --name Mine
    """
    from lossevo.cli.tables import console
    from lossevo.data.convert import convert as converted
    from lossevo.data.labels import label_scheme

    screen = console()
    scheme = label_scheme(labels, levels)
    with _progress(screen, "converting") as progress:
        cohort = converted(source, out, format=format, labels=scheme, name=name, progress=progress)
    splits = ", splits_final.json (copy it to nnUNet_preprocessed/DATASET)" * (out / "splits_final.json").exists()
    _say(
        screen,
        f"Written to {out}: {len(cohort.cases)} cases of {len(cohort.subjects)} subjects, "
        f"classes {', '.join(cohort.class_names[1:])}{splits}",
    )


@data.command(no_args_is_help=True)
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the nnU-Net v2 raw data set.")],
    region: Annotated[
        Literal["lumbar", "cervical"], typer.Option("--region", help="lumbar: L1-L5; cervical: C2-C7.")
    ] = "lumbar",
    cases: Annotated[int, typer.Option("--cases", min=1, help="Number of subjects.")] = 24,
    seed: options.Seed = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--spacing", help="Voxel size in mm: right-left, front-back, head-foot.", show_default="4 1 1"),
    ] = None,
) -> None:
    """Draw synthetic spine MRI with labels, as nnU-Net v2 raw.

    \b
    Examples:
      lossevo data phantom phantom --cases 24
      lossevo data phantom neck --region cervical --cases 12 --seed 7
      lossevo data phantom coarse --cases 8 --spacing 4 4 4
    """
    from lossevo.cli.tables import console
    from lossevo.data.convert import write_generated
    from lossevo.data.output_folder import refuse_overlap
    from lossevo.data.phantom import phantom_cohort

    screen = console()
    refuse_overlap(out)
    cohort = phantom_cohort(region=region, cases=cases, seed=seed or 0, spacing_mm=spacing)
    description = {"name": cohort.name, "description": f"lossevo data phantom --region {region} --seed {seed or 0}"}
    with _progress(screen, "drawing") as progress:
        write_generated(cohort, out, description=description, progress=progress)
    _say(screen, f"Written to {out}: {cases} cases, classes {', '.join(cohort.class_names[1:])}")


@data.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it; nothing may be running.")] = False,
) -> None:
    """Say where prepared volumes are cached and how much they take, or clear the cache.

    LOSSEVO_CACHE names another folder, or is 'off'. Beyond LOSSEVO_CACHE_LIMIT (50GiB; or 'off') what was used longest
    ago is removed when more is written, but nothing that a running process uses.

    \b
    Examples:
      lossevo data cache
      lossevo data cache --clear
    """
    from lossevo.data.cache import default_cache

    if (found := default_cache()) is None:
        print("Nothing is cached: LOSSEVO_CACHE is off, or there is no home directory")
    elif clear:
        print(printable(f"{found.folder}: {found.clear() / 1e6:.1f} MB removed"))
    else:
        limit = "no limit" if found.limit_bytes is None else f"of at most {found.limit_bytes / 1e6:.0f} MB"
        print(printable(f"{found.folder}: {found.size_bytes() / 1e6:.1f} MB, {limit}"))


def _required(out: Path | None) -> Path:
    if out is None:
        raise LossevoError("--out is missing; name a new folder for the pictures")
    return out


@contextmanager
def _progress(screen: Console, what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A line that changes in a terminal, at most ten lines elsewhere; warnings are said in one line each."""

    def tell(done: int, total: int, case: str) -> None:
        if 10 * done // total > 10 * (done - 1) // total:
            _say(screen, f"{time.strftime('%H:%M:%S')} {what}: {done}/{total} {case}")

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: note(message)
        if screen.is_terminal:
            with screen.status(f"{what} …") as status:
                yield lambda done, total, case: status.update(f"{what}: {done}/{total} {case}")
        else:
            yield tell


def _say(screen: Console, *lines: str) -> None:
    for line in lines:
        screen.print(line, highlight=False, soft_wrap=True)


def _print(screen: Console, report: Report, seconds: float) -> None:
    if report.cases:
        screen.print(_cases_table(report))
    for problem in report.errors:
        _say_problem(screen, problem, "red")
    shown = Counter[str]()
    for problem in report.warnings:
        shown[problem.code] += 1
        if shown[problem.code] <= _WARNINGS_SHOWN:
            _say_problem(screen, problem, "yellow")
    for code, count in shown.items():
        if count > _WARNINGS_SHOWN:
            _say(screen, f"  and {count - _WARNINGS_SHOWN} more warnings '{code}'; --json lists all")
    _say(screen, *(f"note: {note}" for note in report.notes))
    verdict = "no errors" if not report.errors else _counted(len(report.errors), "error")
    _say(
        screen,
        f"{report.folder} ({report.format}): {_counted(len(report.cases), 'case')} of "
        f"{_counted(len(report.subjects), 'subject')}, checked in {seconds:.1f} s: {verdict}, "
        f"{_counted(len(report.warnings), 'warning')}",
    )


def _cases_table(report: Report) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from lossevo.data.case_checks import sides

    grouped = any(case.subject != case.case_id for case in report.cases)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", overflow="fold")
    if grouped:
        table.add_column("subject", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("mm", no_wrap=True)
    table.add_column("ch.", justify="right")
    table.add_column("classes in cm³", ratio=1)
    table.add_column("problems", no_wrap=True)
    severity = {problem.code: problem.severity for problem in reversed(report.problems)}
    codes = _codes(report.problems)
    for case in report.cases:
        table.add_row(
            case.case_id,
            *([case.subject] if grouped else []),
            "×".join(map(str, case.shape)) if case.shape else "–",
            sides(case.spacing_mm) if case.spacing_mm else "–",
            str(case.channels),
            _volumes(case, report.class_names),
            Text("\n").join(
                Text(code, "red" if severity[code] == "error" else "yellow") for code in codes.get(case.case_id, ())
            ),
        )
    return table


def _codes(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """The kinds of problems of each case."""
    codes: dict[str, dict[str, None]] = {}
    for problem in problems:
        if problem.case_id is not None:
            codes.setdefault(problem.case_id, {})[problem.code] = None
    return {case_id: list(kinds) for case_id, kinds in codes.items()}


def _volumes(case: CaseReport, class_names: Sequence[str]) -> str:
    volumes = ((name, case.volumes_cm3[name]) for name in class_names if name in case.volumes_cm3)
    # A name and its volume stay on one line.
    return (
        ", ".join(f"{name}\N{NO-BREAK SPACE}{volume:.{1 if volume < 100 else 0}f}" for name, volume in volumes)
        or "none"
    )


def _say_problem(screen: Console, problem: Problem, style: str) -> None:
    screen.print(f"{problem.severity}:", style=style, end=" ")
    _say(screen, " ".join(problem.message.split()))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
