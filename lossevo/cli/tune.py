"""``lossevo tune``: tune learning rate and parameters of losses, or go on where a tuning stopped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossevo.cli import folders, options
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.tuning import Tuning, TuningConfig, TuningResult


def tune(
    losses: Annotated[
        str | None,
        typer.Argument(help="Names in the catalogue ('lossevo losses'), by commas.", show_default=False),
    ] = None,
    data: options.Data = None,
    format: options.Format = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for the tuning.", show_default="runs/tune-COHORT-N")
    ] = None,
    what: Annotated[
        str | None,
        typer.Option(
            "--tune",
            help="lr: the learning rate, from a tenth to ten times the task's; parameters: the loss's own, within "
            "their bounds.",
            show_default="lr,parameters",
        ),
    ] = None,
    bounds: options.Bounds = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Values tried for each loss.", show_default="40")
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option(
            "--finalists", min=1, help="Best values that are confirmed, beside the untuned ones.", show_default="3"
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Fresh trainings that confirm each of them.", show_default="3"),
    ] = None,
    task: options.Task = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Optimiser steps of a training.", show_default="twice the task's, 150"),
    ] = None,
    labels: options.Labels = None,
    levels: options.Levels = None,
    spacing: options.Spacing = None,
    objective: options.Objective = None,
    fold: options.FoldInside = None,
    seed: options.Seed = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=1,
            help="Values proposed at once, a few times the number of workers. Part of the seed.",
            show_default="8",
        ),
    ] = None,
    workers: options.Workers = None,
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    patch_cache: options.PatchCache = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with this folder; nothing finished is done again.")
    ] = None,
    retry_failed: options.RetryFailed = False,
) -> None:
    """Tune losses for a cohort: the learning rate, and the parameters of the loss.

    Ray Tune trains, Optuna proposes values (TPE), trainings that lag behind are ended at a quarter or half of their
    steps (ASHA). The best values and the untuned ones are trained again with fresh seeds, and the best of those is
    kept. A third of the subjects is never touched. Writes LOSS.yaml for 'lossevo evaluate --specs', table.md,
    summary.json, confirmed.csv, sensitivity.csv and trials.csv.

    Without --data it uses an embedded phantom of the lumbar spine. Ctrl-C stops cleanly; --resume goes on.

    \b
    Examples:
      lossevo tune focal_tversky --data DIR --trials 40 --steps 150 --out tuned
      lossevo tune dice_ce,tversky,unified_focal --data DIR --out tuned
      lossevo tune dice --data DIR --tune lr
      lossevo tune focal --data DIR --bounds gamma=0.5:3 --bounds learning_rate=0.003:0.03
      lossevo tune tversky --data DIR --address head:6379 --window 64 --trials 256
      lossevo tune --resume tuned
      lossevo evaluate --data DIR --losses focal_tversky --specs tuned/focal_tversky.yaml --out cmp
    """
    from lossevo.cli.tables import console
    from lossevo.cli.watch import TrainingsFormat, watcher
    from lossevo.tuning import Workers

    screen = console()
    folders.check_retry(resume, retry_failed)
    memory = options.patch_cache_bytes(patch_cache)
    if resume is not None:
        folders.refuse_with_resume(
            {
                "LOSSES": losses,
                "--data": data,
                "--format": format,
                "--out": out,
                "--tune": what,
                "--bounds": bounds,
                "--trials": trials,
                "--finalists": finalists,
                "--seeds": seeds,
                "--task": task,
                "--steps": steps,
                "--labels": labels,
                "--levels": levels,
                "--spacing": spacing,
                "--objective": objective,
                "--fold": fold,
                "--seed": seed,
                "--window": window,
            }
        )
        opened = _tuning(screen, resume, None, memory)
        if retry_failed:  # not before it is known to be such a folder, and able to go on
            folders.retry_failed(resume, screen)
    else:
        from lossevo.configuration_file import updated
        from lossevo.data import MERGED, Fold
        from lossevo.training import TaskSettings, load_task
        from lossevo.tuning import TuningConfig, TuningSettings

        names = tuple(name.strip() for name in (losses or "").split(",") if name.strip())
        if not names:
            raise LossevoError("no loss to tune; name some of 'lossevo losses', as in 'lossevo tune focal_tversky'")
        out = folders.new_place(out) if out else None
        source = options.cohort_source(data, format)
        settings = TuningSettings(what=options.what_is_tuned(what), bounds=options.bounds(bounds))
        for option, key, value in (
            ("--trials", "trials", trials),
            ("--finalists", "finalists", finalists),
            ("--seeds", "seeds", seeds),
            ("--window", "window", window),
        ):
            settings = updated(settings, option, **{key: value})
        chosen = load_task(task) if task else TaskSettings()
        config = TuningConfig(
            losses=names,
            settings=settings,
            steps=steps or 2 * chosen.budget_steps,
            task=chosen,
            cohort=source,
            labels=options.label_scheme(labels, levels) or MERGED,
            spacing_mm=spacing or (options.PHANTOM_SPACING_MM if source.path is None else None),
            seed=seed or 0,
            objective=options.objective(objective),
            fold=Fold.parse(fold) if fold else None,
        )

        def make(folder: Path) -> Tuning:
            return _tuning(screen, folder, config, memory)

        opened = make(out) if out else folders.in_free_folder("tune", source, make)
    _describe(screen, opened)
    with (
        folders.resumable(opened.folder, "tune"),
        folders.removed_unless_begun(opened.folder, new=resume is None),
        watcher(screen, TrainingsFormat()) as watch,
    ):
        results = opened.run(Workers(workers, address, gpus_per_worker), listener=watch)
    watch.conclude()
    _conclude(screen, opened, results)


def _tuning(screen: Console, folder: Path, config: TuningConfig | None, memory: int) -> Tuning:
    """The folder of a tuning: made for a configuration, or opened."""
    from lossevo.tuning import Tuning

    if config is not None:
        config.spaces()  # before anything takes time
        if config.cohort.path is None:
            screen.print("No --data given: using the embedded phantom, synthetic MR volumes of the lumbar spine.")
    with folders.preparing(screen) as progress:
        if config is None:
            return Tuning.open(folder, patch_cache_bytes=memory, progress=progress)
        return Tuning.create(folder, config, patch_cache_bytes=memory, progress=progress)


def _describe(screen: Console, tuning: Tuning) -> None:
    config, subjects, settings = tuning.config, tuning.subjects, tuning.config.settings
    spacing = " × ".join(f"{step:g}" for step in tuning.data.volumes[0].spacing_mm)
    tuned = "; ".join(
        f"{name}: {', '.join(space.names)}" for name, space in zip(config.losses, config.spaces(), strict=True)
    )
    screen.print(
        f"Cohort: {config.cohort}; {', '.join(tuning.data.class_names[1:])} against background at {spacing} mm.\n"
        f"Subjects: {len(subjects.train)} to train on, {len(subjects.validation)} to validate on, "
        f"{len(subjects.untouched)} never touched (subjects.json says who).\n"
        f"Tuned: {tuned}.\n"
        f"Trainings of {config.steps} steps for each loss: {settings.trials} values; then {settings.finalists} of them "
        f"and the untuned ones, {settings.seeds} times each. Objective {config.objective}; seed {config.seed}.\n"
        f"Folder: {tuning.folder}",
        highlight=False,
        markup=False,
    )


def _conclude(screen: Console, tuning: Tuning, results: Sequence[TuningResult]) -> None:
    from lossevo.cli.tables import rows_table
    from lossevo.tuning.files import notes, result_rows, sensitivity_rows

    screen.print()
    screen.print(rows_table(result_rows(results)))
    screen.print(rows_table(sensitivity_rows(results)))
    for note in notes(results):
        screen.print(f"- {note}", style="dim", highlight=False, markup=False)
    folder, source = shlex.quote(str(tuning.folder)), tuning.config.cohort
    specs = " ".join(f"--specs {folder}/{result.name}.yaml" for result in results)
    screen.print(
        f"\nWritten to {tuning.folder}: {', '.join(f'{result.name}.yaml' for result in results)}, table.md, "
        "summary.json, confirmed.csv, sensitivity.csv, trials.csv. Next, on the subjects never touched:\n"
        f"  lossevo evaluate{f' --data {shlex.quote(str(source.path))}' if source.path else ''}"
        f"{f' --format {source.format}' if source.format else ''} --losses {','.join(tuning.config.losses)} {specs} "
        f"--steps {tuning.config.steps} --out {folder}-comparison",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
