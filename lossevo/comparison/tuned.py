"""Tuning inside each fold of a comparison, so that neither a loss's scale nor its parameters decide.

::

    tuning/ledger.sqlite     every training of the tunings
    tuning/table.md, summary.json, confirmed.csv, sensitivity.csv, trials.csv       what came of them

Learning rate and parameters of each loss are chosen within the training subjects of a fold alone: some of them are
validated on, and the fold's test subjects have no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from lossevo.comparison.configuration import ComparisonConfig
from lossevo.comparison.contenders import Contender
from lossevo.comparison.leakage import FoldPlan
from lossevo.data import split_subjects
from lossevo.errors import LossevoError
from lossevo.experiment import Ledger, Listener
from lossevo.experiment.scoring import Scoring
from lossevo.training import Split, TrainingData
from lossevo.tuning import Course, Problem, Space, TuningResult, TuningSettings, Workers, run_courses, write_files
from lossevo.tuning.space import require_known

FOLDER: Final = "tuning"
_LEDGER: Final = "ledger.sqlite"

TunedLosses = Mapping[tuple[str, int], Contender]
"""(Name, fold from 0) -> the loss with the values that are kept."""


def spaces(
    contenders: tuple[Contender, ...], folds: int, settings: TuningSettings, learning_rate: float
) -> dict[tuple[str, int], Space]:
    """What is tuned of each loss in each fold, by (name, fold from 0); losses without anything to tune are left out.

    Raises:
        LossevoError: nothing is tuned of any loss, or bounds that do not fit.
    """
    found = {}
    for fold in range(folds):
        for contender in contenders:
            loss = contender.of_fold(fold)
            space = Space.of(
                loss.spec,
                settings.what,
                learning_rate=learning_rate,
                bounds=settings.bounds,
                own_rate=loss.learning_rate,
            )
            if space.dimensions:
                found[contender.name, fold] = space
    if not found:
        raise LossevoError("--tune: none of the losses has a bounded parameter to tune; tune the learning rate: lr")
    require_known(settings.bounds, found.values())
    return found


def courses(config: ComparisonConfig, plan: FoldPlan, data: TrainingData) -> list[Course]:
    """The tunings of a comparison, from their beginning.

    Raises:
        LossevoError: a fold has too few training subjects to be split, or none to validate on has a label.
    """
    settings = config.tuning
    if settings is None:
        return []
    splits = [_split(plan, fold, config.seed) for fold in range(config.folds)]
    scorings = [_scoring(config, split, data, fold) for fold, split in enumerate(splits, start=1)]
    return [
        Course(
            Problem(
                name=name,
                fold=fold + 1,
                space=space,
                split=splits[fold],
                scoring=scorings[fold],
                study=data.fingerprint,
                steps=config.task.budget_steps,
                one_cycle=config.task.schedule == "one_cycle",
                seed=config.seed,
                place=fold,
            ),
            settings,
        )
        for (name, fold), space in spaces(config.contenders, config.folds, settings, config.task.learning_rate).items()
    ]


def make_folder(folder: Path, config: ComparisonConfig) -> None:
    """Make the folder of the tunings, if there are any, together with that of the comparison.

    Raises:
        LossevoError: it cannot be written.
    """
    if config.tuning is None:
        return
    place = folder / FOLDER
    try:
        place.mkdir()
    except OSError as problem:
        raise LossevoError(f"{place}: cannot be made ({problem.strerror or problem})") from None
    Ledger(place / _LEDGER, create=True).close()


def tune_in_folds(
    folder: Path,
    config: ComparisonConfig,
    plan: FoldPlan,
    data: TrainingData,
    *,
    workers: Workers | None,
    listener: Listener,
) -> TunedLosses:
    """Tune, or go on tuning; writes the files. A finished tuning needs no worker.

    Raises:
        LossevoError: as :func:`courses`; there are no workers but in process, Ray cannot be had, or a file cannot be
            written.
    """
    if config.tuning is None:
        return {}
    together, place = courses(config, plan, data), folder / FOLDER
    with Ledger(place / _LEDGER) as ledger:
        # Trainings of a tuning are measured at the working spacing.
        run_courses(together, replace(data, originals={}), ledger, workers=workers, listener=listener)
    results = [TuningResult.of(course) for course in together]
    write_files(place, results)
    by_name = {contender.name: contender for contender in config.contenders}
    return {
        (result.name, fold - 1): by_name[result.name]
        .of_fold(fold - 1)
        .model_copy(update={"spec": dict(result.spec), "learning_rate": result.learning_rate})
        for result in results
        if (fold := result.fold) is not None
    }


def _split(plan: FoldPlan, fold: int, seed: int) -> Split:
    try:
        inner = split_subjects(plan.train(fold), seed=seed, untouched_share=0)
    except LossevoError as problem:
        raise LossevoError(f"--tune: fold {fold + 1}: {problem}") from None
    return Split(inner.train, inner.validation)


def _scoring(config: ComparisonConfig, split: Split, data: TrainingData, fold: int) -> Scoring:
    if not config.measured[0].is_bounded:
        raise LossevoError(
            f"--tune: losses are tuned by the first of --metrics, but {config.metrics[0]} knows the size of a "
            "structure and not its place; name another first, such as dice"
        )
    try:
        return Scoring.of(config.metrics[0], (v for v in data.volumes if v.subject in split.validate))
    except ValueError:
        raise LossevoError(
            f"--tune: none of the subjects that fold {fold} would be tuned on ({', '.join(split.validate)}) has a "
            "labelled voxel; another --seed draws others"
        ) from None
