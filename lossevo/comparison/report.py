"""The result of a comparison as plain data: one line per loss, one per metric, loss and pair, and what a reader must
know to trust them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lossevo.cluster import Status
from lossevo.comparison.contenders import Contender
from lossevo.comparison.data_use import DataUse, data_use
from lossevo.comparison.findings import findings
from lossevo.comparison.fractions import WHOLE, part_sizes
from lossevo.comparison.leakage import FoldPlan
from lossevo.comparison.notes import Failures, leakage_told, notes_of
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.scores import CaseScore, FalseAlarms, false_alarms, seed_scores, subject_scores
from lossevo.comparison.speed import LearningCurve, Speed, speeds
from lossevo.comparison.statistics import (
    Against,
    Mean,
    PairedDifference,
    Statistics,
    describe,
    holm,
    paired_difference,
    statistics_of,
)
from lossevo.comparison.structures import StructureScore, structure_scores
from lossevo.comparison.trajectories import LossTrajectory
from lossevo.metrics import Metric


@dataclass(frozen=True, slots=True)
class LossResult:
    """A loss and what does not depend on the metric.

    ``failures`` of its ``trainings`` score the worst values, ``leakage`` says that its search has seen tested subjects.
    """

    loss: str
    formula: str
    origin: str
    evolved: bool
    alarms: FalseAlarms
    trainings: int
    failures: int
    leakage: bool


@dataclass(frozen=True, slots=True)
class LossScore:
    """A loss in one metric."""

    loss: str
    score: Mean


@dataclass(frozen=True, slots=True)
class PairResult:
    """The reference against another loss in one metric; ``p_holm`` is adjusted over all pairs of that metric here.

    ``difference`` is in utility: above 0 the reference is better, also in a metric of which lower is better.
    ``against`` says what the claim that the reference is better risks.
    """

    reference: str
    loss: str
    difference: PairedDifference
    p_holm: float
    against: Against


@dataclass(frozen=True, slots=True)
class MetricResult:
    """All that one metric says: losses and pairs, the best mean first; ``findings`` are ``statistics`` in sentences,
    the verdict first.
    """

    metric: Metric
    losses: tuple[LossScore, ...]
    pairs: tuple[PairResult, ...]
    statistics: Statistics
    findings: tuple[str, ...]

    def score(self, loss: str) -> Mean:
        """The score of a loss."""
        return next(found.score for found in self.losses if found.loss == loss)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a comparison.

    ``results`` are those of the metrics, the main one first: it orders ``losses``, the best mean first, and chooses the
    ``reference`` if no loss is evolved. ``leakage`` is empty, or the sentence that every output must repeat. ``notes``
    are for the reader of the tables. ``structures`` are the scores of each class alone, if there are several.
    ``speeds`` are those of losses, if trainings were validated on their way. ``trajectories`` are those of losses that
    adapt, a training each, in order. ``data_use`` is what trainings with a part of the training subjects say, if there
    are any.
    """

    protocol: Protocol
    losses: tuple[LossResult, ...]
    reference: str
    results: tuple[MetricResult, ...]
    leakage: str
    notes: tuple[str, ...]
    structures: tuple[StructureScore, ...] = ()
    speeds: tuple[Speed, ...] = ()
    trajectories: tuple[LossTrajectory, ...] = ()
    data_use: DataUse | None = None

    @property
    def main(self) -> MetricResult:
        """The result of the main metric."""
        return self.results[0]

    @property
    def title(self) -> str:
        """One line: what was compared, how, on whom, and whether there was leakage."""
        metrics = ", ".join(result.metric.label for result in self.results)
        losses = f"{len(self.losses)} losses" if len(self.losses) > 1 else self.losses[0].loss
        return f"{metrics} of {losses} on {self.protocol.measured_on}: {self.protocol}" + (
            f". {self.leakage}" if self.leakage else ""
        )


def make_report(
    scores: Sequence[CaseScore],
    contenders: Sequence[Contender],
    plan: FoldPlan,
    protocol: Protocol,
    failures: Failures,
    trajectories: Sequence[LossTrajectory] = (),
    curves: Sequence[LearningCurve] = (),
    parts: Mapping[float, Sequence[CaseScore]] | None = None,
) -> Report:
    """Evaluate the scores of a finished comparison; ``parts`` are those with fractions of the training subjects.

    Raises:
        LossevoError: one loss has a value where another has none.
    """
    alarms = false_alarms(scores)
    by_metric = [_scores(scores, metric, protocol.seed) for metric in protocol.metrics]
    main = by_metric[0]
    reference = next((contender.name for contender in contenders if contender.evolved), main[0].loss)
    by_name = {contender.name: contender for contender in contenders}
    losses = tuple(_loss_result(by_name[found.loss], scores, alarms[found.loss], plan) for found in main)
    results = tuple(
        _metric_result(metric, found, scores, reference, plan, protocol)
        for metric, found in zip(protocol.metrics, by_metric, strict=True)
    )
    return Report(
        protocol,
        losses,
        reference,
        results,
        leakage_told(plan),
        notes_of(scores, contenders, protocol, failures, [result.statistics for result in results]),
        structure_scores(scores, protocol.metrics),
        speeds(curves, {contender.name for contender in contenders if not contender.evolved}),
        tuple(trajectories),
        data_use(
            {WHOLE: scores, **(parts or {})},
            protocol.metrics,
            part_sizes(plan, protocol.fractions, protocol.seed),
            ranking.tau if (ranking := results[0].statistics.ranking) else None,
        ),
    )


def _scores(scores: Sequence[CaseScore], metric: Metric, seed: int) -> tuple[LossScore, ...]:
    """The losses in a metric, the best mean first."""
    found = [
        LossScore(loss, describe(subjects, seed=seed)) for loss, subjects in subject_scores(scores, metric.name).items()
    ]
    sign = -1 if metric.higher_is_better else 1
    return tuple(sorted(found, key=lambda loss: sign * loss.score.mean))


def _metric_result(
    metric: Metric,
    losses: tuple[LossScore, ...],
    scores: Sequence[CaseScore],
    reference: str,
    plan: FoldPlan,
    protocol: Protocol,
) -> MetricResult:
    per_subject = subject_scores(scores, metric.name)
    others = [found.loss for found in losses if found.loss != reference]
    differences = [
        paired_difference(
            per_subject[reference],
            per_subject[other],
            seed=protocol.seed,
            higher_is_better=metric.higher_is_better,
        )
        for other in others
    ]
    statistics = statistics_of(
        seed_scores(scores, metric.name),
        reference=reference,
        rope=protocol.ropes[metric.name],
        seed=protocol.seed,
        higher_is_better=metric.higher_is_better,
        folds={subject: fold for fold, subjects in enumerate(plan.test) for subject in subjects},
    )
    adjusted = holm([difference.p for difference in differences])
    pairs = tuple(
        PairResult(reference, other, difference, p_holm, statistics.against[other])
        for other, difference, p_holm in zip(others, differences, adjusted, strict=True)
    )
    return MetricResult(metric, losses, pairs, statistics, findings(statistics, metric.unit))


def _loss_result(contender: Contender, scores: Sequence[CaseScore], alarms: FalseAlarms, plan: FoldPlan) -> LossResult:
    status = {(score.fold, score.seed): score.status for score in scores if score.loss == contender.name}
    return LossResult(
        loss=contender.name,
        formula=contender.formula,
        origin=contender.origin,
        evolved=contender.evolved,
        alarms=alarms,
        trainings=len(status),
        failures=sum(ended is not Status.DONE for ended in status.values()),
        leakage=contender.name in plan.leaked,
    )
