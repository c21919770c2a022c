"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.cluster import Executor, WorkerSpec

PHANTOM_SPACING_MM = (4.0, 4.0, 4.0)
"""The embedded phantom is drawn at once at the voxel size at which a CPU training is short."""

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Cohort: an nnU-Net v2 raw folder (dataset.json, imagesTr, labelsTr).", show_default=False
    ),
]
Hof = Annotated[
    list[str] | None,
    typer.Option("--hof", help="Evolved loss: RUN:RANK or RUN:ID. May be repeated.", show_default=False),
]
LossFile = Annotated[
    list[Path] | None,
    typer.Option("--loss-file", help="Exported loss: its folder or loss.json. May be repeated.", show_default=False),
]
Labels = Annotated[
    Literal["merged", "separate"] | None,
    typer.Option(
        "--labels",
        help="merged: all structures against background; separate: one class each.",
        show_default="merged",
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
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Same configuration and seed, same result.", show_default="0"),
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
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker", min=0, help="GPUs of a worker, e.g. 0.5.", show_default="the cluster's, shared out"
    ),
]
InProcess = Annotated[bool, typer.Option("--in-process", help="Train in this process, without Ray (for debugging).")]


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


def refuse_with_resume(given: Mapping[str, object]) -> None:
    """What a run or comparison depends on is fixed when it is made.

    Raises:
        LossevoError: an option is given (is not None).
    """
    changed = [option for option, value in given.items() if value is not None]
    if changed:
        raise LossevoError(f"{', '.join(changed)} cannot be given with --resume: it is fixed when the folder is made")


@contextmanager
def preparing(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A line that shows how far the preparation of a cohort is."""
    with console.status("preparing the cohort") as status:
        yield lambda done, total, case: status.update(f"preparing the cohort: {done}/{total} {case}")


@contextmanager
def resumable(folder: Path, command: str) -> Iterator[None]:
    """Let Ctrl-C end a long command cleanly: say how to go on, exit with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nInterrupted; every finished training is kept. Go on with:  lossevo {command} --resume {folder}")
        raise typer.Exit(130) from None
