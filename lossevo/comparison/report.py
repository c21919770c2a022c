"""The result of a comparison as plain data: one line per loss, one per pair, and what a reader must know to trust
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lossevo.cluster import Status
from lossevo.comparison.configuration import DEFAULT_ROPE
from lossevo.comparison.contenders import Contender
from lossevo.comparison.earlier import EarlierComparison, looks_told
from lossevo.comparison.findings import findings
from lossevo.comparison.leakage import FoldPlan
from lossevo.comparison.provenance import named
from lossevo.comparison.scores import CaseScore, FalseAlarms, false_alarms, seed_scores, subject_scores
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
from lossevo.comparison.trajectories import LossTrajectory

Failures = dict[tuple[str, int, int], str]
"""What happened to failed trainings, by (loss, fold, seed)."""

_SIGNIFICANT = 0.05
_FAILURES_TOLD = 5
_CLASSES_TOLD = 3


@dataclass(frozen=True, slots=True)
class LossResult:
    """A loss, its Dice and its false alarms; ``failures`` of its ``trainings`` scored 0, ``leakage`` says that its
    search has seen tested subjects.
    """

    loss: str
    formula: str
    origin: str
    evolved: bool
    dice: Mean
    alarms: FalseAlarms
    trainings: int
    failures: int
    leakage: bool


@dataclass(frozen=True, slots=True)
class PairResult:
    """The reference against another loss, in Dice; ``p_holm`` is adjusted over all pairs of the report.

    ``against`` says what the claim that the reference is better risks. The false alarms of both stand beside, since no
    Dice counts them.
    """

    reference: str
    loss: str
    difference: PairedDifference
    p_holm: float
    against: Against
    leakage: bool
    reference_false_alarms: int
    false_alarms: int


@dataclass(frozen=True, slots=True)
class Protocol:
    """What was done, the same for every loss. ``unscored`` are those of ``tested`` whose labels are empty.

    ``rope`` is the largest difference without practical relevance. ``earlier`` are the comparisons that tested the same
    subjects before, as far as they are known here or from ``registry``.
    """

    cohort: str
    class_names: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    folds: int
    steps: int
    seeds: int
    seed: int
    tested: tuple[str, ...]
    train_only: tuple[str, ...]
    unscored: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    rope: float = DEFAULT_ROPE
    registry: Path | None = None
    earlier: tuple[EarlierComparison, ...] = ()

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm)

    @property
    def measured_on(self) -> str:
        """Which labels Dice is measured on."""
        classes = self.class_names[1:]
        which = ", ".join(classes) if len(classes) <= _CLASSES_TOLD else f"{len(classes)} classes"
        return f"labels of {which} at {self.voxel_size}"

    @property
    def voxel_size(self) -> str:
        """``4 × 4 × 4 mm``."""
        return f"{' × '.join(f'{step:g}' for step in self.spacing_mm)} mm"

    def __str__(self) -> str:
        more = [
            *([f"{len(self.unscored)} of them without a label, so without Dice"] if self.unscored else []),
            *([f"{len(self.train_only)} more only trained on"] if self.train_only else []),
        ]
        aside = f" ({'; '.join(more)})" if more else ""
        return (
            f"{self.folds}-fold cross-validation on {len(self.tested)} subjects of {self.cohort}{aside}, "
            f"{self.steps} steps, {self.seeds} seed{'s' if self.seeds > 1 else ''}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a comparison: losses and pairs by falling mean Dice.

    ``findings`` are the ``statistics`` in plain sentences, the verdict first. ``leakage`` is empty, or the sentence
    that every output must repeat. ``notes`` are for the reader of the tables. ``trajectories`` are those of losses that
    adapt, a training each, in order.
    """

    protocol: Protocol
    losses: tuple[LossResult, ...]
    reference: str
    pairs: tuple[PairResult, ...]
    statistics: Statistics
    findings: tuple[str, ...]
    leakage: str
    notes: tuple[str, ...]
    trajectories: tuple[LossTrajectory, ...] = ()

    @property
    def title(self) -> str:
        """One line: what was compared, how, on whom, and whether there was leakage."""
        losses = f"{len(self.losses)} losses" if len(self.losses) > 1 else self.losses[0].loss
        return f"Dice of {losses} on {self.protocol.measured_on}: {self.protocol}" + (
            f". {self.leakage}" if self.leakage else ""
        )


def make_report(
    scores: Sequence[CaseScore],
    contenders: Sequence[Contender],
    plan: FoldPlan,
    protocol: Protocol,
    failures: Failures,
    trajectories: Sequence[LossTrajectory] = (),
) -> Report:
    """Evaluate the scores of a finished comparison.

    Raises:
        LossevoError: one loss has a Dice where another has none.
    """
    per_subject = subject_scores(scores)
    alarms = false_alarms(scores, voxel_mm3=protocol.voxel_mm3)
    losses = sorted(
        (
            _loss_result(contender, scores, per_subject[contender.name], alarms[contender.name], plan, protocol)
            for contender in contenders
        ),
        key=lambda result: -result.dice.mean,
    )
    reference = next((contender.name for contender in contenders if contender.evolved), losses[0].loss)
    others = [result.loss for result in losses if result.loss != reference]
    differences = [
        paired_difference(per_subject[reference], per_subject[other], seed=protocol.seed) for other in others
    ]
    statistics = statistics_of(
        seed_scores(scores),
        reference=reference,
        rope=protocol.rope,
        seed=protocol.seed,
        folds={subject: fold for fold, subjects in enumerate(plan.test) for subject in subjects},
    )
    adjusted = holm([difference.p for difference in differences])
    pairs = tuple(
        PairResult(
            reference,
            other,
            difference,
            p_holm,
            statistics.against[other],
            leakage=bool({reference, other} & plan.leaked.keys()),
            reference_false_alarms=alarms[reference].false_alarms,
            false_alarms=alarms[other].false_alarms,
        )
        for other, difference, p_holm in zip(others, differences, adjusted, strict=True)
    )
    notes = (
        *protocol.departures,
        *looks_told(protocol.earlier, protocol.tested, protocol.registry),
        *_who(contenders, reference),
        *_failed(failures, losses),
        *_scored(scores, protocol),
        f"Dice is the mean over classes ({', '.join(protocol.class_names[1:])}), on labels resampled to "
        f"{protocol.voxel_size}, not at native resolution. No boundary metric (NSD, HD95) is measured.",
        *_how_to_read(pairs, statistics),
    )
    return Report(
        protocol,
        tuple(losses),
        reference,
        pairs,
        statistics,
        findings(statistics),
        _leakage(plan),
        notes,
        tuple(trajectories),
    )


def _loss_result(
    contender: Contender,
    scores: Sequence[CaseScore],
    subjects: Mapping[str, float],
    alarms: FalseAlarms,
    plan: FoldPlan,
    protocol: Protocol,
) -> LossResult:
    status = {(score.fold, score.seed): score.status for score in scores if score.loss == contender.name}
    return LossResult(
        loss=contender.name,
        formula=contender.formula,
        origin=contender.origin,
        evolved=contender.evolved,
        dice=describe(subjects, seed=protocol.seed),
        alarms=alarms,
        trainings=len(status),
        failures=sum(ended is not Status.DONE for ended in status.values()),
        leakage=contender.name in plan.leaked,
    )


def _leakage(plan: FoldPlan) -> str:
    if not plan.leaked:
        return ""
    told = ", ".join(
        f"{name} on {len(subjects)} of {len(plan.tested)} subjects" for name, subjects in plan.leaked.items()
    )
    return f"LEAKAGE (allowed by --allow-leakage): tested {told} that its search had seen, so its Dice may be too high"


def _who(contenders: Sequence[Contender], reference: str) -> list[str]:
    notes = []
    evolved = sum(contender.evolved for contender in contenders)
    if evolved > 1:
        notes.append(f"The reference, {reference}, is the first evolved loss that was named.")
    if evolved == 0 and len(contenders) > 1:
        notes.append(
            f"No evolved loss is compared, so the reference is the loss with the best mean, {reference}. It was chosen "
            "after the fact, for which no p accounts."
        )
    unknown = [
        member.name
        for contender in contenders
        for member in contender.members
        if member.evolved and member.search is None
    ]
    if unknown:
        notes.append(
            f"Nothing is on record of whom the search for {', '.join(unknown)} has seen: leakage cannot be ruled out."
        )
    return notes


def _failed(failures: Failures, losses: Sequence[LossResult]) -> list[str]:
    if not failures:
        return []
    told = [
        f"{loss}, fold {fold}, seed {seed}: {what}" for (loss, fold, seed), what in [*failures.items()][:_FAILURES_TOLD]
    ]
    more = f"; and {len(failures) - _FAILURES_TOLD} more, see cases.csv" if len(failures) > _FAILURES_TOLD else ""
    trainings = sum(result.trainings for result in losses)
    return [
        f"{len(failures)} of {trainings} trainings failed and score 0, without false alarms. {'; '.join(told)}{more}."
    ]


def _scored(scores: Sequence[CaseScore], protocol: Protocol) -> list[str]:
    """What has a Dice and what has none: the labels decide it, for all losses alike."""
    notes = []
    if protocol.unscored:
        notes.append(
            f"{len(protocol.unscored)} of {len(protocol.tested)} tested subjects have no labelled structure "
            f"({named(protocol.unscored)}). They have no Dice, with no loss, and are in no mean, interval or test; "
            "false alarms on them are counted."
        )
    scored = {score.class_name for score in scores if score.dice is not None}
    if absent := [name for name in protocol.class_names[1:] if name not in scored]:
        notes.append(f"No tested subject has {named(absent)}: there is no Dice of it.")
    if any(score.dice is None for score in scores):
        notes.append(
            "False alarms: at least one voxel predicted of a class that the case's label lacks, out of all such cases, "
            "classes and seeds; in brackets the mean volume predicted there. There is no Dice there, and no difference "
            "or p counts them: a loss that is better in Dice may be worse in false alarms."
        )
    return notes


def _how_to_read(pairs: Sequence[PairResult], statistics: Statistics) -> list[str]:
    notes = [
        "Subjects are the unit of analysis; classes, cases and seeds are averaged per subject first. CI: BCa bootstrap "
        "of the mean over subjects, somewhat too narrow below 20, and of no width where all values are the same. "
        "Subjects of a fold share a trained network, and trainings share subjects, which neither CI nor p accounts "
        "for: more seeds and a second cohort say more than a smaller p."
    ]
    if not pairs:
        return notes
    notes += [
        "p: two-sided Wilcoxon signed-rank test over subjects, adjusted by Holm over all pairs shown. r: "
        "matched-pairs rank-biserial correlation, 1 if the reference is better for every subject.",
        "Told apart: p < 0.05 in the signed-rank test between the best mean and another loss, adjusted by Holm over "
        "all pairs of losses (pairs.csv). Not told apart does not mean equal.",
        "False claim: probability that the reference is not better, from Student's t of the paired differences "
        f"(Claims Reloaded, arXiv 2505.04720). Better / same / worse: by more than {statistics.rope:g}, within it, and "
        "the other way round, from the same t (Benavoli et al. 2017). Both take the mean difference for normally "
        "distributed.",
        "Smallest difference: t-test with the variance between subjects, between trainings and of the rest, all taken "
        "for independent and normal"
        + (
            "; with one seed, the luck of a training, which meets all subjects of a fold alike, is not known."
            if statistics.signal_to_noise is not None and statistics.signal_to_noise.seeds == 1
            else ". More subjects are taken to be like these, in as many folds. Failed trainings count as noise."
        ),
    ]
    subjects = max(pair.difference.subjects for pair in pairs)
    least = min(1.0, len(pairs) * 2.0 ** (1 - subjects))
    if least > _SIGNIFICANT:
        notes.append(
            f"With {subjects} subjects and {len(pairs)} comparisons the smallest possible "
            f"adjusted p is {least:.2g}: these tests cannot find a difference, whatever the losses are; look at "
            "the intervals, or test more subjects."
        )
    return notes
