"""The statistics of a comparison in a few plain sentences."""

from __future__ import annotations

from collections.abc import Iterable

from lossevo.comparison.statistics import ALPHA, PairPower, Ranking, SignalToNoise, Statistics

_LEADERS_TOLD = 3


def p_text(p: float) -> str:
    """Two significant digits, and none below 0.001."""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def findings(found: Statistics, unit: str = "") -> tuple[str, ...]:
    """The verdict first, then how firm the ranking is, and what the comparison could have found.

    ``unit`` is that of the metric.
    """
    told = [found.verdict] if found.verdict else []
    if found.signal_to_noise is not None and found.signal_to_noise.seeds == 1:
        told.append("One seed: the luck of trainings is counted nowhere, and another seed may turn this.")
    if found.ranking is not None:
        told.append(_ranking(found.ranking))
    if found.friedman is not None:
        test = found.friedman
        told.append(
            f"Friedman's test over all losses: p {_equals(test.p)}. By Nemenyi's test, average ranks that differ by "
            f"less than {test.critical_difference:.2g} cannot be told apart."
        )
    told += _what_could_be_found(found, unit)
    told += [
        f"Told apart from {head} by p, yet by less than the smallest difference that could have been found: "
        f"{', '.join(doubtful)}. p does not count the luck of trainings; other seeds may turn this."
        for head, doubtful in _doubtful(found).items()
    ]
    if found.signal_to_noise is not None:
        told.append(_signal(found.signal_to_noise, unit))
    return tuple(told)


def _what_could_be_found(found: Statistics, unit: str) -> list[str]:
    powers = [against.power for against in found.against.values() if against.power is not None]
    if not powers:
        return []
    subjects, pairs = powers[0].subjects, len(found.pairs)
    least = min(1.0, pairs * 2.0 ** (1 - subjects))
    if least >= ALPHA:
        return [
            f"No losses could be told apart here, whatever they are: with {subjects} subjects and {pairs} "
            f"pair{'s' if pairs > 1 else ''} of losses the smallest possible adjusted p is {least:.2g}. Look at the "
            "intervals, or test more subjects."
        ]
    varying = [power for power in powers if power.smallest > 0]
    return [_power(varying, unit)] if varying else []


def _doubtful(found: Statistics) -> dict[str, list[str]]:
    """For the best and for the reference, the losses told apart from it whose difference the luck of trainings alone
    might make.
    """
    powers = {found.reference: {loss: against.power for loss, against in found.against.items()}}
    if found.pairs:
        powers = {found.pairs[0].better: found.from_best} | powers
    doubtful: dict[str, list[str]] = {}
    for head, by_loss in powers.items():
        for pair in found.pairs:
            if head not in (pair.better, pair.worse) or not pair.told_apart:
                continue
            power = by_loss[pair.worse if pair.better == head else pair.better]
            if power is not None and power.sd_training and pair.difference < power.smallest:
                doubtful.setdefault(head, []).append(pair.worse if pair.better == head else pair.better)
    return doubtful


def _ranking(ranking: Ranking) -> str:
    first = sorted(ranking.ranks, key=lambda loss: -ranking.ranks[loss].shares[0])
    leaders = [loss for loss in first if ranking.ranks[loss].shares[0] >= 0.005][:_LEADERS_TOLD]
    shares = ", ".join(f"{loss} in {ranking.ranks[loss].shares[0]:.0%}" for loss in leaders)
    told = f"Of resamples of the subjects, rank 1 has {shares}."
    if ranking.tau is None:
        return told
    return (
        f"{told} Kendall's τ of their rankings with the one shown: {ranking.tau:.2f} "
        f"[{ranking.tau_low:.2f}, {ranking.tau_high:.2f}]."
    )


def _power(powers: Iterable[PairPower], unit: str) -> str:
    """Of the pair in the middle: a loss that fails must not speak for all."""

    def told_of(value: float, form: str = ".2g") -> str:
        return _with_unit(value, unit, form)

    ordered = sorted(powers, key=lambda power: power.smallest)
    low, high = ordered[0].smallest, ordered[-1].smallest
    middle = ordered[(len(ordered) - 1) // 2]
    span = f", the middle one of {len(ordered)} pairs from {low:.2g} to {told_of(high)}" if len(ordered) > 1 else ""
    what = f"(80 % power, two-sided 5 %, paired over subjects{span})"
    if middle.seeds == 1:
        told = (
            "With one seed the luck of trainings is not known: the smallest difference that this comparison could have "
            f"found is at least {told_of(middle.smallest)} {what}."
        )
    else:
        told = f"The smallest difference that this comparison could have found is {told_of(middle.smallest)} {what}."
    if middle.target == 0:
        return told
    target = told_of(middle.target, "g")
    if middle.smallest <= middle.target:
        return told if middle.seeds == 1 else f"{told} So {target} could be found."
    subjects = middle.subjects_needed
    more = None if subjects is None else f"{subjects} subjects ({subjects - middle.subjects} more)"
    if middle.seeds == 1:
        least = f"at least {more}" if more else "more seeds: more subjects alone are not enough"
        return f"{told} For {target} it takes {least}."
    if middle.seeds_needed is None:
        if more is None:
            return f"{told} For {target} it takes more subjects and more seeds: neither alone is enough."
        return f"{told} For {target} it takes {more}; more seeds alone are not enough."
    seeds = f"{middle.seeds_needed} seeds ({middle.seeds_needed - middle.seeds} more)"
    needed = f"{more}, or {seeds}" if more else f"{seeds}; more subjects alone are not enough"
    return f"{told} For {target} it takes {needed}."


def _signal(signal: SignalToNoise, unit: str) -> str:
    between = _with_unit(signal.between, unit)
    if signal.seeds == 1:
        return (
            f"Signal to noise of the task: not known. The standard deviation between losses is {between}; "
            "that within, over seeds, takes at least 2 seeds."
        )
    if signal.within is None or signal.ratio is None:
        return f"Signal to noise of the task: seeds make no difference; between losses {between}."
    return (
        f"Signal to noise of the task: {signal.ratio:.2g}. The standard deviation is {between} between losses, "
        f"and {_with_unit(signal.within, unit)} within, over {signal.seeds} seeds; noise alone gives about "
        f"{signal.seeds**-0.5:.2g}."
    )


def _with_unit(value: float, unit: str, form: str = ".2g") -> str:
    return f"{value:{form}} {unit}".rstrip()


def _equals(p: float) -> str:
    return p_text(p).replace("<", "< ") if p < 0.001 else f"= {p_text(p)}"
