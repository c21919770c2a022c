"""The map of a search that lies in a run folder."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np

from lossevo.errors import LossevoError
from lossevo.experiment.origin import HandCrafted
from lossevo.experiment.scoring import Scoring
from lossevo.experiment.study import PrepareProgress, Subjects
from lossevo.search.run import read_config
from lossevo.search.selected import Scored, selection_trainings
from lossevo.search.surrogate import Probes, SearchMap
from lossevo.search.surrogate.gaussian_process import squared_distances

MOST = 2000
"""More candidates are not shown: those that came last are."""


def map_of(run: Path, *, progress: PrepareProgress | None = None) -> SearchMap:
    """The candidates in the plane, coloured by the mean utility of their shortest trainings, which all of them have;
    hand-crafted ones are named.

    Raises:
        LossevoError: no run folder of a search, or fewer than three candidates with a score.
    """
    config, subjects = read_config(run), Subjects.read(run)
    prepared = config.prepare(progress)
    validated = [volume for volume in prepared.volumes if volume.subject in subjects.validation]
    trained_on = [volume for volume in prepared.volumes if volume.subject in subjects.train]
    probes = Probes.of(trained_on, len(prepared.class_names), seed=config.seed)
    trainings: dict[str, list[Scored]] = defaultdict(list)
    for training in selection_trainings(run, Scoring.of(config.objective, validated)):
        if training.steps == config.lengths[0]:
            trainings[training.candidate].append(training)
    names, features, scores = [], [], []
    for candidate in [*trainings][-MOST:]:
        first = trainings[candidate][0]
        found = probes.features(first.expression)
        if found is None:
            continue
        names.append(first.origin.name if isinstance(first.origin, HandCrafted) else "")
        features.append(found)
        scores.append(statistics.fmean(training.score for training in trainings[candidate]))
    if len(scores) < 3:
        raise LossevoError(f"{run}: {len(scores)} candidates with a score are no map; let the search go on")
    stacked = np.stack(features)
    return SearchMap.of(names, squared_distances(stacked, stacked), scores)
