"""``lossevo evaluate``: compare losses by k-fold cross-validation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lossevo.cli import folders, options
from lossevo.cli.evaluate_output import describe, draw, print_report
from lossevo.cli.terminal import print_json
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.comparison import Comparison, ComparisonConfig
    from lossevo.data import LabelScheme
    from lossevo.experiment import CohortSource
    from lossevo.losses import LossModule
    from lossevo.tuning import TuningSettings


def evaluate(
    losses: Annotated[
        str | None,
        typer.Option("--losses", help="Hand-crafted losses, by commas; or all.", show_default=False),
    ] = None,
    hof: options.Hof = None,
    loss_file: options.LossFile = None,
    specs: Annotated[
        list[Path] | None,
        typer.Option(
            "--specs",
            help="YAML file of hand-crafted losses with parameters: NAME: {name: LOSS, parameters: {...}}; "
            "'lossevo tune' writes some. May be repeated.",
            show_default=False,
        ),
    ] = None,
    loss_module: options.LossModuleOption = None,
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Compare evolved losses also without each of their terms: which earns the gain?"),
    ] = False,
    data: options.Data = None,
    format: options.Format = None,
    folds: Annotated[int | None, typer.Option("--folds", help="Number of folds.", show_default="3")] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            "--splits",
            help="Folds not to be drawn: nnU-Net's splits_final.json, or 'cohort' for those the data set states.",
            show_default=False,
        ),
    ] = None,
    task: options.Task = None,
    steps: options.Steps = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Trainings of each loss on each fold.", show_default="1")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Decides folds and first seed.", show_default="0")] = None,
    test_on: Annotated[
        str | None,
        typer.Option(
            "--test-on",
            help="untouched: subjects no search has seen; all: everyone. Or the path of a second cohort: train on the "
            "whole of --data, without folds, and test there.",
            show_default="untouched",
        ),
    ] = None,
    test_format: Annotated[
        str | None,
        typer.Option("--test-format", help="Layout of the cohort of --test-on.", show_default="detected"),
    ] = None,
    allow_leakage: Annotated[
        bool,
        typer.Option("--allow-leakage", help="Test losses on subjects their search has seen; every output says so."),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            help="What is measured, by commas; the first is the main metric, which orders the losses. Kinds: dice, "
            "nsd@2mm (any tolerance in mm), hd95, hd, assd (mm), volume_error (ml), volume_error_percent (%), "
            "detection. For example dice,nsd@1.5mm,assd.",
            show_default="dice,nsd@2mm,hd95",
        ),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            "--tune",
            help="Tune each loss inside each fold's training subjects first: lr, parameters, or lr,parameters. On Ray.",
            show_default="not tuned",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="With --tune: values tried for each loss and fold.", show_default="40"),
    ] = None,
    bounds: options.Bounds = None,
    grid: Annotated[
        Literal["original", "working"] | None,
        typer.Option(
            "--grid",
            help="Where metrics are measured: original, each image's own voxels; working, those trained on.",
            show_default="original",
        ),
    ] = None,
    checkpoints: Annotated[
        int | None,
        typer.Option(
            "--checkpoints",
            min=1,
            help="Validate so often in a training, evenly spaced: several tell how fast each loss trains.",
            show_default="1, at the end",
        ),
    ] = None,
    train_fraction: Annotated[
        str | None,
        typer.Option(
            "--train-fraction",
            help="Train also with these shares of each fold's training subjects, such as 0.1,0.25,0.5: how much data "
            "does a loss need? All of them, 1, are always trained with, and give the main result.",
            show_default=False,
        ),
    ] = None,
    rope: Annotated[
        str | None,
        typer.Option(
            "--rope",
            help="Largest difference without practical relevance, in the metric's unit: a number for the main metric, "
            "or dice=0.01,hd95=1.",
            show_default="0.005; 0.5 mm; 0.1 ml; 1 %",
        ),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(
            "--registry",
            help="JSON lines: counts how often the same subjects were looked at; each comparison appends one.",
            show_default=False,
        ),
    ] = None,
    labels: options.Labels = None,
    levels: options.Levels = None,
    spacing: options.Spacing = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for the comparison.", show_default=False)
    ] = None,
    combine: Annotated[
        list[Path] | None,
        typer.Option(
            "--combine",
            help="Train nothing: rank the losses over finished comparisons of several cohorts. Once for each folder.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = None,
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    patch_cache: options.PatchCache = None,
    in_process: options.InProcess = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with this comparison; nothing finished is done again.")
    ] = None,
    retry_failed: options.RetryFailed = False,
) -> None:
    """Compare losses by k-fold cross-validation.

    Same folds, initial weights, batches and steps for every loss. Folds are drawn over the subjects that the searches
    of the evolved losses have never seen; everybody else is only trained on. Cohort, labels, spacing and task that are
    not given are those of the runs that the losses come from. With no run and no --data the embedded phantom is used.
    With --test-on OTHER_DIR losses are trained on the whole of --data, and tested on another cohort.
    Writes cases.csv, summary.csv, comparisons.csv, pairs.csv, ranks.csv, summary.json, table.md, scores for other tools
    as challenger.csv and claims_reloaded.csv, and the folds as splits_final.json; with several classes structures.csv;
    with --checkpoints speed.csv, curves.csv and figures/learning-curves.png; with --train-fraction fractions.csv,
    fraction_cases.csv and figures/data-fractions.png; of losses that adapt trajectories.csv and
    figures/trajectory-LOSS.png and .svg.

    \b
    Examples:
      lossevo evaluate --data DIR --losses cross_entropy,dice,dice_ce --out cmp
      lossevo evaluate --data DIR --losses all --seeds 3 --out catalogue
      lossevo evaluate --data DIR --losses dice,dice_ce --hof runs/mine:1 \
--folds 3 --steps 150 --seeds 3 --out cmp
      lossevo evaluate --losses dice_ce --hof runs/mine:1 --out cmp
      lossevo evaluate --losses dice_ce --hof runs/f1 --hof runs/f2 --hof runs/f3 --out nested
      lossevo evaluate --data DIR --losses dice_ce --hof runs/mine:1 --ablate --seeds 3 --out parts
      lossevo evaluate --data DIR --losses all --metrics nsd@1mm,dice,assd --rope nsd@1mm=0.01,assd=0.2 --out cmp
      lossevo evaluate --data DIR --losses all --checkpoints 10 --out speed
      lossevo evaluate --data DIR --losses dice,dice_ce,focal --train-fraction 0.1,0.25,0.5 --seeds 3 --out amount
      lossevo evaluate --data DIR --losses dice,dice_ce,focal --test-on OTHER_DIR --seeds 3 --out external
      lossevo evaluate --data DIR --losses dice_ce --specs my_losses.yaml --out cmp
      lossevo evaluate --data DIR --losses dice_ce,tversky --tune lr,parameters --trials 20 --out fair
      lossevo evaluate --data DIR --losses dice_ce --loss-module my_losses.py:MyLoss --out cmp
      lossevo evaluate --combine cmp-spine --combine cmp-hippocampus --out consensus
      lossevo evaluate --resume cmp
    """
    from lossevo.cli.tables import console
    from lossevo.cli.watch import TrainingsFormat, watcher
    from lossevo.comparison import parse_test_on, to_document
    from lossevo.tuning import Workers

    screen = console(quiet=as_json)
    given = {
        "--losses": losses,
        "--hof": hof,
        "--loss-file": loss_file,
        "--specs": specs,
        "--ablate": ablate or None,
        "--data": data,
        "--format": format,
        "--folds": folds,
        "--splits": splits,
        "--task": task,
        "--steps": steps,
        "--seeds": seeds,
        "--seed": seed,
        "--test-on": test_on,
        "--test-format": test_format,
        "--allow-leakage": allow_leakage or None,
        "--metrics": metrics,
        "--tune": tune,
        "--trials": trials,
        "--bounds": bounds,
        "--grid": grid,
        "--checkpoints": checkpoints,
        "--train-fraction": train_fraction,
        "--rope": rope,
        "--registry": registry,
        "--labels": labels,
        "--levels": levels,
        "--spacing": spacing,
        "--out": out,
    }
    if combine:
        others = {option: value for option, value in given.items() if option != "--out"}
        _combine(screen, combine, out, {**others, "--resume": resume, "--loss-module": loss_module}, as_json)
        return
    make = options.executor_factory(workers, address, gpus_per_worker, in_process)
    memory = options.patch_cache_bytes(patch_cache)
    folders.check_retry(resume, retry_failed)
    if resume is not None:
        folders.refuse_with_resume(given)
        modules = options.loss_modules(loss_module)
        comparison = _comparison(screen, resume, None, memory, modules, cohort_of_runs=False)
        if retry_failed:  # not before it is known to be such a folder, and able to go on
            folders.retry_failed(resume, screen)
    else:
        if out is None:
            raise LossevoError("--out is missing; name a new folder for the comparison")
        folders.new_place(out)
        options.tell_ranks(screen, hof)
        modules = options.loss_modules(loss_module)
        config = _configuration(
            losses,
            hof,
            loss_file,
            specs,
            modules,
            ablate,
            options.cohort_source(data, format) if data is not None or format is not None else None,
            folds,
            splits,
            task,
            steps,
            seeds,
            seed,
            *parse_test_on(test_on, test_format),
            allow_leakage,
            metrics,
            _tuning(tune, trials, bounds),
            grid,
            checkpoints,
            rope,
            registry,
            options.label_scheme(labels, levels),
            spacing,
            train_fraction,
        )
        if config.tuning is not None and in_process:
            raise LossevoError("--tune trains on Ray; leave --in-process out")
        comparison = _comparison(screen, out, config, memory, modules, cohort_of_runs=data is None)
    describe(screen, comparison)
    with (
        folders.resumable(comparison.folder, _again(modules)),
        folders.workers_for(comparison.folder, make, new=resume is None) as make,
        watcher(screen, TrainingsFormat()) as watch,
    ):
        tuners = None if in_process else Workers(workers, address, gpus_per_worker)
        report = comparison.run(make, tuners=tuners, listener=watch)
    watch.conclude()
    draw(comparison, report)
    if as_json:
        print_json(to_document(report))
    else:
        print_report(screen, comparison, report)


def _again(modules: Sequence[LossModule]) -> str:
    """The command that goes on with a comparison: code of the user's has to be named again."""
    return " ".join(["evaluate", *(f"--loss-module {shlex.quote(str(module))}" for module in modules)])


def _combine(
    screen: Console, folders: Sequence[Path], out: Path | None, others: Mapping[str, object], as_json: bool
) -> None:
    """Rank losses over comparisons that have ended."""
    from lossevo.cli.folders import new_place
    from lossevo.cli.tables import rows_table
    from lossevo.comparison import consensus, consensus_document, consensus_rows, read_compared, write_consensus

    if changed := [option for option, value in others.items() if value is not None]:
        raise LossevoError(f"{', '.join(changed)} cannot be given with --combine, which trains nothing; leave it out")
    if out is not None:
        new_place(out)
    found = consensus([read_compared(folder) for folder in folders])
    if out is not None:
        write_consensus(found, out)
    if as_json:
        print_json(consensus_document(found))
        return
    for result in found.metrics:
        screen.print(f"\n{result.metric.heading}: rank (mean) on each cohort", highlight=False)
        screen.print(rows_table(consensus_rows(found, result)))
    screen.print(found.finding, highlight=False)
    if found.left_out:
        screen.print(f"Not in all comparisons, or not the same loss: {', '.join(found.left_out)}.", highlight=False)
    if out is not None:
        screen.print(f"\nWritten to {out}: consensus.md, consensus.csv, agreement.csv, consensus.json", highlight=False)


def _configuration(
    losses: str | None,
    hof: Sequence[str] | None,
    loss_file: Sequence[Path] | None,
    specs: Sequence[Path] | None,
    modules: Sequence[LossModule],
    ablate: bool,
    source: CohortSource | None,
    folds: int | None,
    splits: str | None,
    task: Path | None,
    steps: int | None,
    seeds: int | None,
    seed: int | None,
    test_on: Literal["untouched", "all"],
    test_cohort: CohortSource | None,
    allow_leakage: bool,
    metrics: str | None,
    tuning: TuningSettings | None,
    grid: Literal["original", "working"] | None,
    checkpoints: int | None,
    rope: str | None,
    registry: Path | None,
    labels: LabelScheme | None,
    spacing: tuple[float, float, float] | None,
    train_fraction: str | None,
) -> ComparisonConfig:
    from lossevo.comparison import DEFAULT_METRICS, cohort_of_runs, configure, contenders_with_specs, with_ablations
    from lossevo.experiment import CohortSource
    from lossevo.training import load_task

    if folds is not None and splits is not None:
        raise LossevoError(f"--folds is {folds}, but the folds are given by --splits {splits}; leave one of them out")
    names = [name.strip() for name in (losses or "").split(",") if name.strip()]
    contenders = contenders_with_specs(names, hof or (), loss_file or (), specs or (), modules)
    if ablate:
        contenders = with_ablations(contenders)
    source = source or cohort_of_runs(contenders)
    if source is None:
        source, spacing = CohortSource(), spacing or options.PHANTOM_SPACING_MM
    return configure(
        contenders,
        source,
        task=load_task(task) if task else None,
        steps=steps,
        folds=folds,
        splits="cohort" if splits == "cohort" else Path(splits) if splits else None,
        seeds=1 if seeds is None else seeds,
        seed=seed or 0,
        test_on=test_on,
        test_cohort=test_cohort,
        allow_leakage=allow_leakage,
        labels=labels,
        spacing_mm=spacing,
        metrics=DEFAULT_METRICS if metrics is None else metrics,
        tuning=tuning,
        grid=grid or "original",
        checkpoints=checkpoints or 1,
        rope=rope,
        registry=registry,
        train_fraction=train_fraction,
    )


def _tuning(what: str | None, trials: int | None, bounds: Sequence[str] | None) -> TuningSettings | None:
    """How losses are tuned inside each fold; None: not at all."""
    from lossevo.configuration_file import updated
    from lossevo.tuning import TuningSettings

    if what is None:
        for option, value in (("--trials", trials), ("--bounds", bounds)):
            if value is not None:
                raise LossevoError(f"{option} says how losses are tuned; add --tune lr,parameters, or leave it out")
        return None
    settings = TuningSettings(what=options.what_is_tuned(what), bounds=options.bounds(bounds))
    return updated(settings, "--trials", trials=trials)


def _comparison(
    screen: Console,
    folder: Path,
    config: ComparisonConfig | None,
    memory: int,
    modules: Sequence[LossModule],
    *,
    cohort_of_runs: bool,
) -> Comparison:
    from lossevo.comparison import Comparison

    with folders.preparing(screen) as progress:
        if config is None:
            return Comparison.open(folder, patch_cache_bytes=memory, progress=progress, loss_modules=modules)
        return Comparison.create(
            folder,
            config,
            cohort_of_runs=cohort_of_runs,
            patch_cache_bytes=memory,
            progress=progress,
            loss_modules=modules,
        )
