"""``lossevo metalearn``: learn a neural loss by gradient through the U-Net's steps, or go on where that stopped."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossevo.cli import folders, options

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.data import LabelScheme
    from lossevo.experiment import CohortSource, Entry
    from lossevo.metalearning import MetaConfig, MetaRun

DEMO_OUTER_STEPS = 40
DEMO_EVALUATE_EVERY = 20
DEMO_CONFIRMATION_SEEDS = 3


def metalearn(
    data: options.Data = None,
    format: options.Format = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="New folder for the run.", show_default="runs/metalearn-COHORT-N")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            help="YAML file with inputs, hidden, inner_steps, tasks, outer_loss, learning_rate, … "
            "(docs/metalearning.md).",
            show_default="measured, for a CPU",
        ),
    ] = None,
    outer_steps: Annotated[
        int | None,
        typer.Option("--outer-steps", min=1, help="Steps of the loss network.", show_default="the settings'"),
    ] = None,
    task: options.Task = None,
    steps: options.Steps = None,
    labels: options.Labels = None,
    levels: options.Levels = None,
    spacing: options.Spacing = None,
    objective: options.Objective = None,
    fold: options.FoldInside = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    patch_cache: options.PatchCache = None,
    in_process: options.InProcess = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with this run folder; nothing finished is done again.")
    ] = None,
    retry_failed: options.RetryFailed = False,
) -> None:
    """Learn a neural loss for a cohort (ML3), or go on learning.

    A small network per voxel is the loss. U-Nets take a few steps under it; then it is moved along the gradient,
    through those steps, of a task loss on other subjects. In the end it is distilled into a formula, and both are
    trained with new seeds beside hand-crafted losses. lossevo hof, export, evaluate and analyze take the run folder.

    Without --data it uses an embedded phantom of the lumbar spine. Ctrl-C stops cleanly; --resume goes on.

    \b
    Examples:
      lossevo metalearn                     a demonstration on the phantom
      lossevo metalearn --data DIR --run runs/ml3 --workers 2
      lossevo metalearn --data DIR --settings shaped.yaml --outer-steps 600
      lossevo metalearn --data DIR --address head:6379
      lossevo metalearn --resume runs/ml3
    """
    from lossevo.cli.tables import console
    from lossevo.cli.watch import MetaFormat, watcher

    out = console()
    make = options.executor_factory(workers, address, gpus_per_worker, in_process)
    memory = options.patch_cache_bytes(patch_cache)
    folders.check_retry(resume, retry_failed)
    if resume is not None:
        folders.refuse_with_resume(
            {
                "--data": data,
                "--format": format,
                "--run": run,
                "--settings": settings,
                "--outer-steps": outer_steps,
                "--task": task,
                "--steps": steps,
                "--labels": labels,
                "--levels": levels,
                "--spacing": spacing,
                "--objective": objective,
                "--fold": fold,
                "--seed": seed,
            }
        )
        opened = _run(out, resume, None, memory)
        if retry_failed:  # not before it is known to be such a folder, and able to go on
            folders.retry_failed(resume, out)
    else:
        run = folders.new_place(run) if run else None
        source = options.cohort_source(data, format)
        scheme = options.label_scheme(labels, levels)
        config = _configuration(source, settings, outer_steps, task, steps, scheme, spacing, objective, fold, seed or 0)

        def make_run(folder: Path) -> MetaRun:
            return _run(out, folder, config, memory)

        opened = make_run(run) if run else folders.in_free_folder("metalearn", source, make_run)
    _describe(out, opened)
    with (
        folders.resumable(opened.folder, "metalearn"),
        folders.workers_for(opened.folder, make, new=resume is None) as make,
        watcher(out, MetaFormat()) as watch,
    ):
        entries = opened.learn(make, listener=watch)
    watch.conclude()
    _draw(out, opened, entries)
    _conclude(out, opened, entries)


def _configuration(
    source: CohortSource,
    settings: Path | None,
    outer_steps: int | None,
    task: Path | None,
    steps: int | None,
    labels: LabelScheme | None,
    spacing: tuple[float, float, float] | None,
    objective: str | None,
    fold: str | None,
    seed: int,
) -> MetaConfig:
    from lossevo.configuration_file import read, updated
    from lossevo.data import MERGED, Fold
    from lossevo.metalearning import MetaConfig, MetaSettings
    from lossevo.training import TaskSettings, load_task

    demo = source.path is None
    if settings is not None:
        chosen = read(MetaSettings, settings, expects="inputs, hidden, inner_steps, tasks, outer_loss, …")
    elif demo:
        chosen = MetaSettings(
            outer_steps=DEMO_OUTER_STEPS,
            evaluate_every=DEMO_EVALUATE_EVERY,
            confirmation_seeds=DEMO_CONFIRMATION_SEEDS,
        )
    else:
        chosen = MetaSettings()
    trained = load_task(task) if task else TaskSettings()
    return MetaConfig(
        settings=updated(chosen, "--outer-steps", outer_steps=outer_steps),
        task=updated(trained, "--steps", budget_steps=steps),
        cohort=source,
        labels=labels or MERGED,
        spacing_mm=spacing or (options.PHANTOM_SPACING_MM if demo else None),
        seed=seed,
        objective=options.objective(objective),
        fold=Fold.parse(fold) if fold else None,
    )


def _run(out: Console, folder: Path, config: MetaConfig | None, memory: int) -> MetaRun:
    """The run folder: made for a configuration, or opened."""
    from lossevo.metalearning import MetaRun

    if config is not None and config.cohort.path is None:
        out.print("No --data given: using the embedded phantom, synthetic MR volumes of the lumbar spine.")
    with folders.preparing(out) as progress:
        if config is None:
            return MetaRun.open(folder, patch_cache_bytes=memory, progress=progress)
        return MetaRun.create(folder, config, patch_cache_bytes=memory, progress=progress)


def _describe(out: Console, run: MetaRun) -> None:
    config, settings, subjects = run.config, run.config.settings, run.subjects
    spacing = " × ".join(f"{step:g}" for step in run.data.volumes[0].spacing_mm)
    sizes = "-".join(map(str, (len(settings.inputs) + len(settings.shaping), *settings.hidden, 1)))
    shaping = f" (shaping, in meta-training alone: {', '.join(settings.shaping)})" if settings.shaping else ""
    out.print(
        f"Cohort: {config.cohort}; {', '.join(run.data.class_names[1:])} against background at {spacing} mm.\n"
        f"Subjects: {len(subjects.train)} to learn on, {len(subjects.validation)} to validate on, "
        f"{len(subjects.untouched)} never touched (subjects.json says who).\n"
        f"Loss network: {sizes} {settings.activation} of {', '.join(settings.inputs)}{shaping}; outer loss "
        f"{settings.outer_loss}.\n"
        f"{settings.outer_steps} outer steps of {settings.tasks} tasks, each {settings.inner_steps} steps of a U-Net "
        f"({settings.optimiser}) out of a training of {config.task.budget_steps}; whole trainings by "
        f"{config.objective}; seed {config.seed}.\n"
        f"Run folder: {run.folder}",
        highlight=False,
        markup=False,
    )


def _draw(out: Console, run: MetaRun, entries: list[Entry]) -> None:
    from lossevo.report.files import write_pictures
    from lossevo.report.metalearning_figures import metalearning_pictures

    with out.status("drawing"):
        write_pictures(metalearning_pictures(run.folder, entries), run.folder / "figures")


def _conclude(out: Console, run: MetaRun, entries: list[Entry]) -> None:
    from lossevo.cli.tables import hall_of_fame_table, score_legend
    from lossevo.experiment.origin import Distilled, MetaLearned

    out.print(hall_of_fame_table(entries, len(entries), run.folder))
    out.print(score_legend(entries), style="dim", highlight=False)
    for entry in entries:
        if isinstance(entry.origin, Distilled):
            out.print(
                f"{str(entry.origin).capitalize()}: {entry.unicode}", highlight=False, markup=False, soft_wrap=True
            )
    source = run.config.cohort
    data = f" --data {shlex.quote(str(source.path))}" if source.path else ""
    folder = shlex.quote(str(run.folder))
    data += f" --format {source.format}" if source.format else ""
    learned = next(entry.rank for entry in entries if isinstance(entry.origin, MetaLearned))
    out.print(
        f"\nThe run lies in {run.folder}, with pictures of it in {run.folder / 'figures'}. Next:\n"
        f"  lossevo hof {folder} --show {learned}\n"
        f"  lossevo analyze --losses dice,cross_entropy --hof {folder}:{learned} --out {folder}-analysis\n"
        f"  lossevo export {folder} {learned} --out my_loss\n"
        f"  lossevo evaluate{data} --losses cross_entropy,dice,dice_ce --hof {folder}:{learned} "
        f"--out {folder}-comparison",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
