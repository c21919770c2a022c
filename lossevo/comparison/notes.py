"""What a reader must know to trust the tables of a comparison, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from lossevo.comparison.borders import borders_told
from lossevo.comparison.contenders import Contender
from lossevo.comparison.earlier import looks_told
from lossevo.comparison.foreign_losses import foreign_told
from lossevo.comparison.leakage import FoldPlan
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.provenance import named
from lossevo.comparison.scores import CaseScore
from lossevo.comparison.statistics import Statistics
from lossevo.metrics import Metric

Failures = dict[tuple[str, int, int], str]
"""What happened to failed trainings, by (loss, fold, seed)."""

_SIGNIFICANT = 0.05
_FAILURES_TOLD = 5


def leakage_told(plan: FoldPlan) -> str:
    """The sentence that every output must repeat; empty if nothing leaked."""
    if not plan.leaked:
        return ""
    told = ", ".join(
        f"{name} on {len(subjects)} of {len(plan.tested)} subjects" for name, subjects in plan.leaked.items()
    )
    return f"LEAKAGE (allowed by --allow-leakage): tested {told} that its search had seen, so it may look too good"


def notes_of(
    scores: Sequence[CaseScore],
    contenders: Sequence[Contender],
    protocol: Protocol,
    failures: Failures,
    statistics: Sequence[Statistics],
) -> tuple[str, ...]:
    """All notes but that on leakage; ``statistics`` are those of the protocol's metrics."""
    return (
        *protocol.departures,
        *looks_told(protocol.earlier, protocol.tested, protocol.registry),
        *([protocol.tuned] if protocol.tuned else []),
        *_who(contenders, statistics[0].reference, protocol),
        *foreign_told(contenders),
        *_failed(failures, len(contenders), protocol),
        *_scored(scores, protocol),
        *borders_told(scores),
        *_external(protocol),
        *_fractions(protocol),
        protocol.measuring,
        protocol.implementation,
        *_several(protocol.metrics, len(contenders)),
        *_how_to_read(protocol, statistics[0], len(contenders) - 1),
    )


def with_unit(value: float, metric: Metric) -> str:
    """``0.5 mm``."""
    return f"{value:g} {metric.unit}".rstrip()


def _who(contenders: Sequence[Contender], reference: str, protocol: Protocol) -> list[str]:
    notes, main = [], protocol.metrics[0]
    evolved = sum(contender.evolved for contender in contenders)
    if evolved > 1:
        notes.append(f"The reference, {reference}, is the first evolved loss that was named.")
    if evolved == 0 and len(contenders) > 1:
        notes.append(
            f"No evolved loss is compared, so the reference is the loss with the best mean {main.label}, {reference}. "
            "It was chosen after the fact, for which no p accounts."
        )
    notes += _tuned(contenders, protocol)
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


def _tuned(contenders: Sequence[Contender], protocol: Protocol) -> list[str]:
    tuned = [contender for contender in contenders if contender.tuned or contender.learning_rate is not None]
    if not tuned:
        return []
    told = "; ".join(f"{contender.name}, {contender.origin}" for contender in tuned)
    if protocol.tuning:
        return [f"Tuned before, or with a learning rate of their own, where the tuning here began: {told}."]
    others = (
        " The others have the parameters of their papers and the task's learning rate."
        if len(tuned) < len(contenders)
        else ""
    )
    return [f"Tuned losses: {told}.{others}"]


def _failed(failures: Failures, losses: int, protocol: Protocol) -> list[str]:
    if not failures:
        return []
    metrics, trainings = protocol.metrics, losses * protocol.folds * protocol.seeds
    told = [
        f"{loss}, {'' if protocol.trained_on else f'fold {fold}, '}seed {seed}: {what}"
        for (loss, fold, seed), what in [*failures.items()][:_FAILURES_TOLD]
    ]
    more = f"; and {len(failures) - _FAILURES_TOLD} more, see cases.csv" if len(failures) > _FAILURES_TOLD else ""
    worst = ", ".join(f"{metric.name} {_worst(metric)}" for metric in metrics)
    unbounded = [metric.name for metric in metrics if not metric.is_bounded]
    beyond = f" A prediction that is too large can have a worse {' and '.join(unbounded)}." if unbounded else ""
    return [
        f"{len(failures)} of {trainings} trainings failed and score the worst values ({worst}), without false alarms."
        f"{beyond} {'; '.join(told)}{more}."
    ]


def _external(protocol: Protocol) -> list[str]:
    if not protocol.trained_on:
        return []
    times = f"{protocol.seeds} time{'s' if protocol.seeds > 1 else ''}"
    left_out = (
        f" {len(protocol.left_out)} more are left out, since a compared search has seen them "
        f"({named(protocol.left_out)})."
        if protocol.left_out
        else ""
    )
    return [
        f"External test: every loss is trained {times} on the whole of {protocol.trained_on}, "
        f"{len(protocol.train_only)} subjects, and tested on {protocol.cohort}, {len(protocol.tested)} subjects, of "
        f"whom nothing is trained on.{left_out} There is one training set. How lucky it is is in no interval, no p and "
        "no smallest difference: they tell of this training set, and of subjects like those tested."
    ]


def _fractions(protocol: Protocol) -> list[str]:
    if not protocol.fractions:
        return []
    shares = ", ".join(f"{fraction:g}" for fraction in protocol.fractions)
    whose = "the training subjects" if protocol.trained_on else "a fold's training subjects"
    return [
        f"Data utilisation: each loss is also trained on {shares} of {whose}, as often and for as many steps. Subjects "
        "are drawn by the seed, the same for all losses and seeds; smaller parts lie within larger ones. One draw is "
        "made of each, whose luck is in no number. All other tables are of all training subjects."
    ]


def _worst(metric: Metric) -> str:
    return f"= {metric.worst}" if isinstance(metric.worst, str) else with_unit(metric.worst, metric)


def _scored(scores: Sequence[CaseScore], protocol: Protocol) -> list[str]:
    """What has a value and what has none: the labels decide it, for all losses alike."""
    notes = []
    if protocol.unscored:
        notes.append(
            f"{len(protocol.unscored)} of {len(protocol.tested)} tested subjects have no labelled structure "
            f"({named(protocol.unscored)}). They have no score, with no loss, and are in no mean, interval or test; "
            "false alarms on them are counted."
        )
    scored = {score.class_name for score in scores if score.false_voxels is None}
    if absent := [name for name in protocol.class_names[1:] if name not in scored]:
        notes.append(f"No tested subject has {named(absent)}: there is no score of it.")
    if any(score.false_voxels is not None for score in scores):
        notes.append(
            "False alarms: at least one voxel predicted of a class that the case's label lacks, out of all such cases, "
            "classes and seeds; in brackets the mean volume predicted there. No metric has a value there, and no "
            "difference or p counts them: a loss that is better in a metric may be worse in false alarms."
        )
    return notes


def _several(metrics: Sequence[Metric], losses: int) -> list[str]:
    if len(metrics) == 1 or losses == 1:
        return []
    return [
        f"{len(metrics)} metrics are measured ({', '.join(metric.name for metric in metrics)}), and {metrics[0].name} "
        "was named as the main one before. p values of different metrics are not adjusted for each other."
    ]


def _how_to_read(protocol: Protocol, main: Statistics, pairs: int) -> list[str]:
    notes = [
        "Subjects are the unit of analysis; classes, cases and seeds are averaged per subject first. CI: BCa bootstrap "
        "of the mean over subjects, somewhat too narrow below 20, and of no width where all values are the same. "
        + (
            "All tested subjects share the trained networks, which neither CI nor p accounts for: more seeds and other "
            "cohorts say more than a smaller p."
            if protocol.trained_on
            else "Subjects of a fold share a trained network, and trainings share subjects, which neither CI nor p "
            "accounts for: more seeds and a second cohort say more than a smaller p."
        )
    ]
    if not pairs:
        return notes
    ropes = ", ".join(f"{metric.name} {with_unit(protocol.ropes[metric.name], metric)}" for metric in protocol.metrics)
    one_seed = protocol.seeds == 1
    alike = "" if protocol.trained_on else ", in as many folds"
    notes += [
        "Δ: by how much the reference is better; below 0 the other is. Where lower values are better, lower counts as "
        "better here, too: in differences, wins, ranks and effect sizes.",
        "p: two-sided Wilcoxon signed-rank test over subjects, adjusted by Holm over all pairs of one metric that its "
        "table shows. r: matched-pairs rank-biserial correlation, 1 if the reference is better for every subject.",
        "Told apart: p < 0.05 in the signed-rank test between the best mean and another loss, adjusted by Holm over "
        "all pairs of losses in one metric (pairs.csv). Not told apart does not mean equal.",
        "False claim: probability that the reference is not better, from Student's t of the paired differences "
        "(Claims Reloaded, arXiv 2505.04720). Better / same / worse: by more than the metric's rope, within it, and "
        f"the other way round, from the same t (Benavoli et al. 2017). Ropes: {ropes}. Both take the mean difference "
        "for normally distributed.",
        "Smallest difference: t-test with the variance between subjects, between trainings and of the rest, all taken "
        "for independent and normal"
        + (
            "; with one seed, the luck of a training, which meets all the subjects that it tests alike, is not known."
            if one_seed
            else f". More subjects are taken to be like these{alike}. Failed trainings count as noise."
        ),
    ]
    subjects = len(protocol.tested) - len(protocol.unscored)
    least = min(1.0, pairs * 2.0 ** (1 - subjects))
    if least > _SIGNIFICANT:
        notes.append(
            f"With {subjects} subjects and {pairs} comparisons the smallest possible "
            f"adjusted p is {least:.2g}: these tests cannot find a difference, whatever the losses are; look at "
            "the intervals, or test more subjects."
        )
    return notes
