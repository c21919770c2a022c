"""``lossevo search``: evolve a loss, or go on where a search stopped."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lossevo.cli import folders, options
from lossevo.cli.terminal import note
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.cluster import Executor
    from lossevo.data import LabelScheme
    from lossevo.experiment import CohortSource, Entry
    from lossevo.search import Run, RunConfig

DEMO_TRAININGS = 96
DEMO_STEPS = 100
COMPARED = ("cross_entropy", "dice", "dice_ce", "focal", "tversky")
"""Hand-crafted losses that the comparison proposed in the end takes beside the evolved one."""


def search(
    space: Annotated[
        str | None,
        typer.Argument(
            help="Search space: segmentation, extended, glo, taylorglo, auto_seg_loss, tuned_catalogue, or a YAML "
            "file. (distillation is for distilling learned losses: lossevo metalearn.)",
            show_default="segmentation",
        ),
    ] = None,
    data: options.Data = None,
    format: options.Format = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="New folder for the run.", show_default="runs/SPACE-COHORT-N")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget",
            min=1,
            help="Trainings of --steps steps in all: to find, tune and confirm losses. With --resume: more than the "
            "run was begun with.",
            show_default="the space's; of a demonstration 96",
        ),
    ] = None,
    task: options.Task = None,
    steps: options.Steps = None,
    horizon: Annotated[
        str | None,
        typer.Option(
            "--horizon",
            metavar="STEPS|auto",
            help="Steps at which the loss will be used: losses are ranked and confirmed there. Shorter trainings only "
            "say who gets so far. auto: where twice the steps no longer help Dice + cross-entropy on this cohort.",
            show_default="as --steps",
        ),
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
            help="Trainings in flight: virtual workers, a few times the number of real ones. Part of the seed.",
        ),
    ] = None,
    workers: options.Workers = None,
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    patch_cache: options.PatchCache = None,
    in_process: options.InProcess = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with this run folder; nothing finished is done again.")
    ] = None,
    retry_failed: options.RetryFailed = False,
    propose: Annotated[
        str | None,
        typer.Option(
            "--propose",
            metavar="COMMAND",
            help="A program that proposes losses beside the strategy: it reads the hall of fame as JSON and prints a "
            "formula a line. It runs without a shell, whenever 16 trainings have ended. With --resume give it again.",
            show_default=False,
        ),
    ] = None,
    confirm_lr: Annotated[
        str | None,
        typer.Option(
            "--confirm-lr",
            metavar="RATE,RATE,…",
            help="In the end train the winner and the best hand-crafted loss at these learning rates, and tell whether "
            "the lead is more than a matter of the rate. Their trainings are beside the budget.",
            show_default=False,
        ),
    ] = None,
    audit_screening: Annotated[
        int | None,
        typer.Option(
            "--audit-screening",
            min=1,
            help="In the end train so many of the candidates that the screening rejected, and tell how many would have "
            "been in the better half. Their trainings are beside the budget.",
        ),
    ] = None,
) -> None:
    """Evolve a loss for a cohort, or go on with a search.

    Genetic programming proposes, CMA-ES tunes coefficients, trainings with new seeds confirm.

    Without --data it uses an embedded phantom of the lumbar spine. Ctrl-C stops cleanly; --resume goes on.

    \b
    Examples:
      lossevo search                        a demonstration on the phantom
      lossevo search --data DIR --run runs/mine --workers 2 --budget 240
      lossevo search --data DIR --steps 75 --horizon 300 --budget 600
      lossevo search --data DIR --horizon auto --budget 600
      lossevo search glo --data DIR         the space of Gonzalez & Miikkulainen
      lossevo search tuned_catalogue --data DIR    hand-crafted losses, their parameters tuned
      lossevo search --data DIR --levels L1-L5 --labels separate
      lossevo search --data DIR --fold 1/3 --run runs/f1
      lossevo search --data DIR --objective 0.5*dice+0.5*nsd@2mm
      lossevo search --data DIR --task gpu.yaml --gpus-per-worker 0.5
      lossevo search --data DIR --address head:6379 --budget 5000 --window 64
      lossevo search --data DIR --propose "python ask_a_model.py"
      lossevo search --resume runs/mine
      lossevo search --resume runs/mine --budget 1200
      lossevo search --resume runs/mine --retry-failed
      lossevo search --resume runs/mine --audit-screening 20
      lossevo search --resume runs/mine --confirm-lr 3e-3,1e-2,3e-2
    """
    from lossevo.cli.tables import console
    from lossevo.cli.watch import SearchFormat, watcher
    from lossevo.search import give_budget, read_config
    from lossevo.search.strategies.program import Program

    out = console()
    folders.check_retry(resume, retry_failed)
    rates = _rates(confirm_lr)
    program = Program(propose, told=note) if propose is not None else None
    make = options.executor_factory(workers, address, gpus_per_worker, in_process)
    memory = options.patch_cache_bytes(patch_cache)
    if resume is not None:
        folders.refuse_with_resume(
            {
                "SPACE": space,
                "--data": data,
                "--format": format,
                "--run": run,
                "--task": task,
                "--steps": steps,
                "--horizon": horizon,
                "--labels": labels,
                "--levels": levels,
                "--spacing": spacing,
                "--objective": objective,
                "--fold": fold,
                "--seed": seed,
                "--window": window,
            }
        )
        if budget is not None:
            give_budget(resume, budget)
        opened = _run(out, resume, None, memory)
        if retry_failed:  # not before it is known to be such a folder, and able to go on
            folders.retry_failed(resume, out)
    else:
        run = folders.new_place(run) if run else None
        source = options.cohort_source(data, format)
        scheme = options.label_scheme(labels, levels)
        config = _configuration(
            space or "segmentation",
            source,
            budget,
            task,
            steps,
            horizon,
            scheme,
            spacing,
            objective,
            fold,
            seed or 0,
            window,
        )

        def make_run(folder: Path) -> Run:
            return _run(out, folder, config, memory)

        opened = make_run(run) if run else folders.in_free_folder(config.space.name, source, make_run)
    _describe(out, opened)
    with (
        folders.resumable(opened.folder, "search"),
        folders.workers_for(opened.folder, make, new=resume is None) as make,
        watcher(out, SearchFormat()) as watch,
    ):
        entries = opened.search(
            lambda spec: _checked(make(spec), opened),
            listener=watch,
            audited=audit_screening,
            program=program,
            learning_rates=rates,
        )
    watch.conclude()
    _conclude(out, replace(opened, config=read_config(opened.folder)), entries)


def _configuration(
    space: str,
    source: CohortSource,
    budget: int | None,
    task: Path | None,
    steps: int | None,
    horizon: str | None,
    labels: LabelScheme | None,
    spacing: tuple[float, float, float] | None,
    objective: str | None,
    fold: str | None,
    seed: int,
    window: int | None,
) -> RunConfig:
    from lossevo.configuration_file import updated
    from lossevo.data import MERGED, Fold
    from lossevo.search import RunConfig, available, load_space
    from lossevo.training import TaskSettings, load_task

    chosen = load_space(space)
    demo = source.path is None
    # A file says itself how large its budget is.
    default = DEMO_TRAININGS if demo and space in available() else None
    shares = updated(chosen.budget, "--budget", trainings=budget or default)
    shares = updated(shares, "--window", window=window)
    settings = load_task(task) if task else TaskSettings(budget_steps=DEMO_STEPS) if demo else TaskSettings()
    task_settings = updated(settings, "--steps", budget_steps=steps)
    horizon_steps = _horizon(horizon)
    if isinstance(horizon_steps, int) and horizon_steps < task_settings.budget_steps:
        raise LossevoError(
            f"--horizon {horizon} is less than the {task_settings.budget_steps} steps of the shortest training; give "
            "at least as many, or a lower --steps"
        )
    return RunConfig(
        space=updated(chosen, "--budget", budget=shares),
        task=task_settings,
        horizon=horizon_steps,
        cohort=source,
        labels=labels or MERGED,
        spacing_mm=spacing or (options.PHANTOM_SPACING_MM if demo else None),
        seed=seed,
        objective=options.objective(objective),
        fold=Fold.parse(fold) if fold else None,
    )


def _horizon(given: str | None) -> int | Literal["auto"] | None:
    """What --horizon says."""
    if given is None or given == "auto":
        return "auto" if given else None
    if not (given.isdecimal() and int(given) > 0):
        raise LossevoError(f"--horizon is '{given}'; give a number of steps above 0, or auto")
    return int(given)


def _rates(given: str | None) -> list[float] | None:
    """What --confirm-lr says, the smallest first."""
    if given is None:
        return None
    try:
        rates = sorted({float(part) for part in given.split(",")})
    except ValueError:
        rates = []
    if len(rates) < 2 or not all(0 < rate < math.inf for rate in rates):
        raise LossevoError(f"--confirm-lr is '{given}'; give two or more learning rates above 0, as in 3e-3,1e-2,3e-2")
    return rates


def _run(out: Console, folder: Path, config: RunConfig | None, memory: int) -> Run:
    """The run folder: made for a configuration, or opened."""
    from lossevo.search import Run

    if config is not None and config.cohort.path is None:
        out.print("No --data given: using the embedded phantom, synthetic MR volumes of the lumbar spine.")
    with folders.preparing(out) as progress:
        if config is None:
            return Run.open(folder, patch_cache_bytes=memory, progress=progress)
        return Run.create(folder, config, patch_cache_bytes=memory, progress=progress)


def _checked(executor: Executor, run: Run) -> Executor:
    """The executor; says so if the search cannot keep its workers busy."""
    from lossevo.search.space import MAX_WINDOW

    window = run.config.space.budget.window
    if executor.workers > window:
        better = min(4 * executor.workers, MAX_WINDOW)
        hint = f"; give a new run --window {better}" if better > window else ""
        note(
            f"at most {window} trainings are in flight, so {executor.workers - window} of {executor.workers} "
            f"workers stay idle{hint}."
        )
    return executor


def _describe(out: Console, run: Run) -> None:
    config, subjects, plan = run.config, run.subjects, run.config.plan
    shortest = config.lengths[0]
    spacing = " × ".join(f"{step:g}" for step in run.data.volumes[0].spacing_mm)
    confirming = (
        "after those that find the horizon"
        if config.horizon == "auto"
        else f"({plan.confirmation // shortest} of them confirm {plan.finalists} losses at {config.lengths[-1]} steps)"
    )
    out.print(
        f"Cohort: {config.cohort}; {', '.join(run.data.class_names[1:])} against background at {spacing} mm.\n"
        f"Subjects: {len(subjects.train)} to train on, {len(subjects.validation)} to validate on, "
        f"{len(subjects.untouched)} never touched (subjects.json says who).\n"
        f"Search space: {config.space.name}; {plan.total // shortest} trainings of {shortest} steps {confirming}; "
        f"objective {config.objective}; seed {config.seed}.\n"
        f"Run folder: {run.folder}",
        highlight=False,
        markup=False,
    )


def _conclude(out: Console, run: Run, entries: list[Entry]) -> None:
    from lossevo.cli.tables import hall_of_fame_table, score_legend, search_findings

    out.print(hall_of_fame_table(entries, 10, run.folder))
    out.print(score_legend(entries), style="dim", highlight=False)
    for line in search_findings(run.folder):
        out.print(line, style="dim", highlight=False, markup=False)
    _tell_audit(out, run)
    source = run.config.cohort
    data = f" --data {shlex.quote(str(source.path))}" if source.path else ""
    folder = shlex.quote(str(run.folder))
    data += f" --format {source.format}" if source.format else ""
    steps = f" --steps {run.config.horizon}" if run.config.horizon else ""
    losses, ranks, note = _compared(entries)
    evolved = " ".join(f"--hof {folder}:{rank}" for rank in ranks)
    if run.config.fold is not None:
        note += (
            f" It ran inside fold {run.config.fold}. With a search of each of the {run.config.fold.of} folds, "
            "'lossevo evaluate --hof RUN' for each compares them as one, 'nested'."
        )
    out.print(
        f"\nThe run lies in {run.folder}.{note} Next:\n"
        f"  lossevo hof {folder} --show 1\n"
        f"  lossevo export {folder} 1 --out my_loss\n"
        f"  lossevo evaluate{data} --losses {','.join(losses)} {evolved}{steps} --out {folder}-comparison",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _tell_audit(out: Console, run: Run) -> None:
    """What became of the rejected candidates, if some were trained."""
    from lossevo.metrics import Objective
    from lossevo.search.audit import AUDITED, read_audit
    from lossevo.search.screening import Check

    audit = read_audit(run.folder)
    if audit is None:
        return
    objective = run.config.objective
    asked = f" ({audit.asked} were asked for, but no more are kept)" if len(audit.candidates) < audit.asked else ""
    lines = [
        f"\nOf {len(audit.candidates)} candidates that the screening had rejected{asked}, trained for {audit.steps} "
        f"steps, {sum(each.in_top_half for each in audit.candidates)} would have been in the better half of the "
        f"search's ({objective} beyond {audit.median:.4f}):"
    ]
    for check in AUDITED:
        if rejected := audit.of(check):
            best_first = Objective.parse(objective).direction == "higher"
            scores = sorted((each.score for each in rejected if each.score is not None), reverse=best_first)
            best = f"scores {', '.join(f'{score:.4f}' for score in scores)}" if scores else "none could be trained"
            better = sum(each.in_top_half for each in rejected)
            lines.append(f"  {check}: {better} of {len(rejected)}; {best}")
    if audit.of(Check.EQUIVALENT):
        lines.append("  An equivalent trains like an earlier candidate: that half of them are good is as it should be.")
    out.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _compared(entries: Sequence[Entry]) -> tuple[list[str], list[int], str]:
    """What is worth a comparison: hand-crafted losses, ranks, and a note if no evolved loss leads.

    The best evolved loss and the leader are compared, and nothing twice: a loss of the catalogue is left to its rank.
    """
    from lossevo.comparison import contenders_from

    if not entries:
        return list(COMPARED), [1], ""
    best = next((entry for entry in entries if not entry.literature), entries[0])
    compared, note = [best], ""
    if best.rank > 1:
        compared.append(entries[0])
        note = f" A hand-crafted loss leads, {entries[0].literature}; the best evolved one has rank {best.rank}."
    taken = {entry.expression.hash for entry in compared}
    losses = [loss.name for loss in contenders_from(COMPARED) if loss.identity not in taken]
    return losses, [entry.rank for entry in compared], note
