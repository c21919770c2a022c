"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lossevo.cli.terminal import note
from lossevo.errors import LossevoError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.cluster import Executor, WorkerSpec
    from lossevo.data import LabelScheme
    from lossevo.experiment import CohortSource
    from lossevo.losses import LossModule

Made = TypeVar("Made")

PHANTOM_SPACING_MM = (4.0, 4.0, 4.0)
"""The embedded phantom is drawn at once at the voxel size at which a CPU training is short."""

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Cohort: a data set's folder, or the CSV or JSON file that lists its cases (docs/data.md).",
        show_default=False,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="Layout of --data: nnunet, spider, verse, bids, … (docs/data.md).", show_default="detected"
    ),
]
Hof = Annotated[
    list[str] | None,
    typer.Option(
        "--hof", help="Loss of a run: RUN:RANK or RUN:ID; RUN alone is rank 1. May be repeated.", show_default=False
    ),
]
LossFile = Annotated[
    list[Path] | None,
    typer.Option("--loss-file", help="Exported loss: its folder or loss.json. May be repeated.", show_default=False),
]
LossModuleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--loss-module",
        metavar="FILE:CLASS",
        help="Loss of your own: my_losses.py:MyLoss or package.module:MyLoss. Runs that code (docs/own_loss.md). May "
        "be repeated.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="merged: all structures against background; separate: one class each; or a YAML file with classes.",
        show_default="merged",
    ),
]
Levels = Annotated[
    str | None,
    typer.Option(
        "--levels",
        help="Vertebrae of these levels alone, e.g. L1-L5 or C3,C5-C7; all else is background.",
        show_default="all structures",
    ),
]
Spacing = Annotated[
    tuple[float, float, float] | None,
    typer.Option("--spacing", help="Voxel size in mm to resample to, e.g. 4 4 4.", show_default="chosen for a CPU"),
]
Task = Annotated[
    Path | None,
    typer.Option(
        "--task",
        help="Training task: a YAML file with network, channels, patch_size, learning_rate, … (docs/proxy.md).",
        show_default="measured, for a CPU",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, help="Optimiser steps of a training.", show_default="the task's; in a comparison twice that"
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="What is maximised on the validation subjects: dice, nsd@2mm, hd95, assd, … at the working spacing, or a "
        "sum such as 0.5*dice+0.5*nsd@2mm.",
        show_default="dice",
    ),
]
FoldInside = Annotated[
    str | None,
    typer.Option(
        "--fold",
        help="Nested, as in 2/5: leave the test subjects of this fold untouched, for 'lossevo evaluate' with a run of "
        "each fold. Same --seed for all of them.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**31 - 1, help="Same configuration and seed, same result.", show_default="0"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Worker processes, one torch thread each.", show_default="one per CPU or GPU"
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Use a running Ray cluster: HOST:PORT, or auto.", show_default=False),
]
PatchCache = Annotated[
    str | None,
    typer.Option(
        "--patch-cache",
        metavar="SIZE",
        help="Memory for patches and volumes; a cohort that needs more is read from the cache on disk. 500MiB, 8GiB, …",
        show_default="2GiB",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker", min=0, help="GPUs of a worker, e.g. 0.5.", show_default="the cluster's, shared out"
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="With --resume: do trainings again that timed out, lost their workers, ran out of memory or ended in an "
        "error. Those that diverged stay.",
    ),
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        "--bounds",
        metavar="NAME=LOW:HIGH",
        help="Tune a parameter within narrower bounds, e.g. gamma=0.5:3, or learning_rate=0.003:0.03. May be repeated.",
        show_default=False,
    ),
]
InProcess = Annotated[bool, typer.Option("--in-process", help="Train in this process, without Ray (for debugging).")]


def cohort_source(data: Path | None, format: str | None) -> CohortSource:
    """Where the cohort comes from.

    Raises:
        LossevoError: a format of nothing.
    """
    from lossevo.experiment import CohortSource

    if data is None and format is not None:
        raise LossevoError(f"--format is {format}, but there is no --data whose format that is")
    return CohortSource(path=data.resolve() if data else None, format=format)


def tell_ranks(console: Console, hof: Sequence[str] | None) -> None:
    """Say which loss a run stands for that was named without one."""
    from lossevo.comparison import run_and_rank

    for run, which in map(run_and_rank, hof or ()):
        if not which:
            console.print(f"--hof {run} names no rank, so its rank 1 is taken.", highlight=False, markup=False)


def loss_modules(named: Sequence[str] | None) -> tuple[LossModule, ...]:
    """Code of the user's; it is said which, before any of it runs.

    Raises:
        LossevoError: no such file, module or name, or one is named twice.
    """
    if not named:
        return ()
    from lossevo.losses import LossModule

    found: list[LossModule] = []
    for text in named:
        module = LossModule.read(text)
        if any(module.identity == other.identity for other in found):
            raise LossevoError(f"--loss-module {text}: the same code is named twice; leave one out")
        found.append(module)
    told = ", ".join(f"{module} (sha256 {module.sha256[:12]}…)" for module in found)
    note(f"--loss-module runs code of yours here and on every worker: {told}")
    return tuple(found)


def label_scheme(labels: str | None, levels: str | None) -> LabelScheme | None:
    """What is segmented, None if neither option is given.

    Raises:
        LossevoError: no such scheme, file or levels.
    """
    from lossevo.data import labels as schemes

    return None if labels is None and levels is None else schemes.label_scheme(labels or "merged", levels)


def objective(text: str | None) -> str:
    """The name of an objective; Dice if none is given.

    Raises:
        LossevoError: it is none.
    """
    from lossevo.experiment.scoring import DEFAULT_OBJECTIVE
    from lossevo.metrics import Objective as Parsed

    return DEFAULT_OBJECTIVE if text is None else Parsed.parse(text).name


def bounds(given: Sequence[str] | None) -> dict[str, tuple[float, float]]:
    """Bounds by name, from ``NAME=LOW:HIGH``.

    Raises:
        LossevoError: not of this form, or a name twice.
    """
    found: dict[str, tuple[float, float]] = {}
    for item in given or ():
        name, _, numbers = item.partition("=")
        low, _, high = numbers.partition(":")
        try:
            parsed = (float(low), float(high))
        except ValueError:
            raise LossevoError(f"--bounds {item}: expected NAME=LOW:HIGH, as in gamma=0.5:3") from None
        if name in found:
            raise LossevoError(f"--bounds: {name} is given twice; leave one out")
        found[name] = parsed
    return found


def what_is_tuned(text: str | None) -> tuple[str, ...]:
    """What ``--tune`` names: lr, parameters, or both, which is the default.

    Raises:
        LossevoError: anything else.
    """
    from typing import get_args

    from lossevo.tuning.space import What

    known = get_args(What)
    names = known if text is None else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise LossevoError(
                f"--tune: {name!r} cannot be tuned{nearest(name, known)}; expected lr, parameters, or both"
            )
    if len({*names}) < len(names):
        raise LossevoError(f"--tune {text}: something is given twice; leave one out")
    return names


def patch_cache_bytes(size: str | None) -> int:
    """Bytes of a size with a unit, as given to ``--patch-cache``.

    Raises:
        LossevoError: it is no size.
    """
    from lossevo.sizes import size_bytes
    from lossevo.training import DEFAULT_PATCH_CACHE_BYTES

    if size is None:
        return DEFAULT_PATCH_CACHE_BYTES
    return size_bytes(size, source="--patch-cache", expected="a number and a unit, as in 500MiB or 8GiB")


def executor_factory(
    workers: int | None, address: str | None, gpus_per_worker: float | None, in_process: bool
) -> Callable[[WorkerSpec], Executor]:
    """What makes the executor once there is something to run.

    Raises:
        LossevoError: the options exclude each other.
    """
    if in_process and address is not None:
        raise LossevoError(f"--in-process needs no cluster, but --address is {address}; leave one of them out")

    def make(spec: WorkerSpec) -> Executor:
        from lossevo.cluster import open_executor

        return open_executor(
            spec, workers=workers, address=address, gpus_per_worker=gpus_per_worker, in_process=in_process
        )

    return make
