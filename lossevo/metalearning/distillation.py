"""Distillation: a learned loss as a formula that can be read.

Genetic programming, with the search's own variation and population, looks for the voxel-wise formula whose gradient
field agrees best with that of the loss (:mod:`lossevo.metalearning.gradient_fields`). As a learned loss it is a mean
over the foreground classes, each against the rest. The search starts from the per-voxel losses of the literature and
the sums of two of them, see ``search_spaces/distillation.yaml``. Every formula is brought to a normal form, its
coefficients are fitted by least squares, and one whose gradient points the wrong way is negated. One that is better
than all shorter ones is shortened by measurement, fitted again and rounded to as few digits as its agreement allows.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from lossevo.errors import LossevoError
from lossevo.experiment.candidate import Candidate
from lossevo.expression import Expression, Kind, Node, canonical
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.neural import LearnedLoss
from lossevo.metalearning.gradient_fields import Teacher
from lossevo.metalearning.normal_form import normal_form
from lossevo.search.genetic import Variation
from lossevo.search.screening import Check, Screening, depends_on_both
from lossevo.search.simplification import simplify
from lossevo.search.space import SearchSpace, load_space
from lossevo.search.strategies.seeds import given_by
from lossevo.search.strategies.steady_state import Direction, SteadyStateEvolution
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategy_settings import SteadyState

BUDGET = 1000
"""Formulas that are tried by default."""
TOLERANCE = 0.005
"""So much agreement is given for a shorter formula."""
_GLANCE, _FIT, _POLISH = 3, 8, 30
"""Steps in fitting coefficients: those of any formula, of one as good as those known, and of one that is kept."""
_GAIN = 0.8
"""A longer formula is kept if its error, 1 - agreement, is at most this share of that of any shorter one."""
_NEGLIGIBLE = 1e-9
"""An error that no formula need do better than."""
_LEAST = 0.01
"""An agreement that is worth mentioning."""
_LARGEST_COEFFICIENT = 100.0

Progress = Callable[[int, int, float], None]
"""``progress(done, budget, best_agreement)``: after each formula."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """A formula that stands for a loss.

    Attributes:
        expression: the formula, voxel-wise under one mean over the foreground classes.
        agreement: of its gradient field with the loss's, from 0 to 1.
        cosines: of the two fields at each stage of a training.
        scale: what the formula is to be multiplied by to have gradients as long as the loss's; Adam does not mind.
        failed: the check of the search's screening that it fails, if any: it may not be safe to train with.
    """

    expression: Expression
    agreement: float
    cosines: Mapping[str, float]
    scale: float
    failed: Check | None

    @property
    def complexity(self) -> float:
        """Of the expression: the sum of its nodes' weights."""
        return self.expression.complexity

    @property
    def error(self) -> float:
        """1 - agreement."""
        return 1 - self.agreement


def distill(
    loss: SegmentationLoss,
    *,
    classes: int,
    seed: int,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> list[Distilled]:
    """The formulas on the Pareto front of agreement with ``loss`` and complexity, the shortest first.

    One that fails the screening stands in the front only where none that passes is as good and as short. Same seed,
    same formulas; a larger budget goes on where a smaller one ended, so its best formula agrees as well or better.

    Args:
        loss: what is to be distilled, as it stands; left as it is.
        classes: that it is meant for, background included.
        seed: of the genetic programming.
        budget: formulas that are tried.
        progress: is told after each formula.

    Raises:
        LossevoError: fewer than two classes, a budget below one, a loss whose gradient is zero or not finite, or one
            that nothing that was tried agrees with (0.01).
    """
    if budget < 1:
        raise LossevoError(f"the budget of a distillation is {budget}, expected at least one formula")
    space = _space(loss)
    assert isinstance(space.strategy, SteadyState)
    variation, generator = Variation(space), random.Random(seed)
    seeds = deque(given_by(space))
    front = _Front(Teacher(loss, classes), Screening(classes))
    evolution = SteadyStateEvolution(
        space.model_copy(update={"seeds": ()}),
        space.strategy,
        space.strategy.population,
        lambda candidate: candidate.score,
        front.fitting.direction,
    )
    known: set[Node] = set()
    for number in range(budget):
        proposal = seeds.popleft() if seeds else evolution.ask(generator)
        assert proposal is not None, "a steady-state evolution never waits"
        expression = _expressed(proposal, variation)
        if expression is not None and (structure := canonical(expression).root) not in known:
            known.add(structure)
            worst = min((member.value for member in evolution.members), default=0.0)
            expression, agreement = front.offer(expression, worst)
            candidate = Candidate(expression, proposal.origin, number, {1: {seed: agreement}})
            if agreement > 0 and variation.trees.to_tree(expression) is not None:
                evolution.take(candidate)
                evolution.tell(candidate)
        if progress is not None:
            progress(number + 1, budget, max((member.agreement for member in front.members), default=0.0))
    if not front.members:
        raise LossevoError(f"none of {budget} formulas agrees with the loss: give the distillation a larger budget")
    return sorted(front.members, key=lambda member: member.complexity)


def recommended(front: Sequence[Distilled], tolerance: float = TOLERANCE) -> Distilled:
    """The shortest formula whose agreement is at most ``tolerance`` below the best, of those that pass the screening;
    of all if none does.

    Raises:
        ValueError: no formulas.
    """
    among = [member for member in front if member.failed is None] or list(front)
    best = max(member.agreement for member in among)
    return min(
        (member for member in among if member.agreement >= best - tolerance),
        key=lambda member: (member.complexity, -member.agreement),
    )


def _space(loss: SegmentationLoss) -> SearchSpace:
    """The space of formulas, without what the loss cannot depend on; sums of two of its seeds are seeds too."""
    space = load_space("distillation")
    unknown = set() if loss.uses_distance_map else {"d"}
    if isinstance(loss, LearnedLoss) and "frequency" not in loss.network.inputs:
        unknown.add("f")
    terminals = {name: weight for name, weight in space.terminals.items() if name not in unknown}
    sums = [f"{first} + 1.0 * {second}" for first, second in combinations(space.seeds, 2)]
    return space.model_copy(update={"terminals": terminals, "seeds": (*space.seeds, *sums)})


def _expressed(proposal: Proposal, variation: Variation) -> Expression | None:
    """The formula of a proposal in normal form; None beyond the limits, or without what a loss depends on."""
    written = proposal.expression
    expression = normal_form(written.root, written.coefficients, weighted=True) if written is not None else None
    if expression is None or not depends_on_both(expression) or any(map(_disguises, expression.root.walk())):
        return None
    tree = variation.trees.to_tree(expression)
    return expression if tree is not None and variation.within_limits(tree) else None


def _disguises(node: Node) -> bool:
    """Whether this is a root, power or logarithm of the target alone: of 0, that is a number made by its protection."""
    if node.name not in ("log", "pow", "sqrt"):
        return False
    return {below.name for below in node.children[0].walk() if below.kind is Kind.VOXEL and not below.children} == {"y"}


class _Fitting:
    """Fits the coefficients of formulas to a teacher."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def agreement(self, expression: Expression) -> float:
        """As the formula stands."""
        return self.teacher.agreement(self.teacher.field_of(expression))

    def direction(self, expression: Expression) -> Direction:
        """The unit vector of the formula's field, zero if that is not finite."""
        field = self.teacher.field_of(expression)
        if field is None:
            return np.zeros(len(self.teacher.field), dtype=np.float32)
        return torch.nn.functional.normalize(field, dim=0, eps=1e-30).float().numpy()

    def fitted(self, expression: Expression, steps: int) -> tuple[Expression, float]:
        """The formula with coefficients that agree at least as well, and its agreement; negated where that is right."""
        agreement = self._signed(expression)
        if expression.coefficients and steps:
            found = self._least_squares(expression, steps)
            if abs(better := self._signed(found)) > abs(agreement):
                expression, agreement = found, better
        root = expression.root if agreement >= 0 else Node("neg", (expression.root,))
        return normal_form(root, expression.coefficients) or expression, abs(agreement)

    def _signed(self, expression: Expression) -> float:
        return self.teacher.signed_agreement(self.teacher.field_of(expression))

    def _least_squares(self, expression: Expression, steps: int) -> Expression:
        """min_c,a |a g(c) - h|², a of any sign and eliminated."""
        teacher, bound = self.teacher, _LARGEST_COEFFICIENT

        def residual(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
            field = teacher.field_of(expression, torch.from_numpy(coefficients))
            # A formula that is not finite, or has no gradient, explains nothing.
            if field is None or not bool(field @ field):
                return (-teacher.field).numpy()
            return (field * teacher.scale(field) - teacher.field).numpy()

        start = np.clip(expression.coefficients, -0.99 * bound, 0.99 * bound)
        found = scipy.optimize.least_squares(
            residual, start, bounds=(-bound, bound), x_scale="jac", ftol=1e-10, max_nfev=steps
        )
        return expression.with_coefficients(_rounded(found.x, digits=6))


def _rounded(coefficients: Sequence[float] | NDArray[np.float64], digits: int) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in coefficients]


def _about(agreement: float) -> float:
    """What is as good: an error larger by no more than a hundredth."""
    return agreement - 0.01 * (1 - agreement) - _NEGLIGIBLE


class _Front:
    """The formulas that no other beats in agreement, complexity and screening at once."""

    def __init__(self, teacher: Teacher, screening: Screening) -> None:
        self.fitting = _Fitting(teacher)
        self.members: list[Distilled] = []
        self._teacher = teacher
        self._screening = screening

    def offer(self, expression: Expression, promising: float) -> tuple[Expression, float]:
        """Fit a formula, for longer if its agreement is ``promising``, and let it in if it is good; it, as it is now,
        and its agreement.
        """
        fitted, agreement = self.fitting.fitted(expression, _GLANCE)
        if agreement > promising:
            fitted, agreement = self.fitting.fitted(fitted, _FIT)
        if (
            agreement < _LEAST
            or self._covered(fitted, agreement, None)
            or self._covered(fitted, agreement, self._screening.measure(fitted).failed)
        ):
            return fitted, agreement
        # What is shortened or rounded here is never worse than this by more than a tolerance, and never again touched:
        # what a larger budget finds can only be added.
        fitted, agreement = self._polished(fitted)
        failed = self._screening.measure(fitted).failed
        if not self._covered(fitted, agreement, failed):
            self._add(fitted, agreement, failed)
        return fitted, agreement

    def _covered(self, expression: Expression, agreement: float, failed: Check | None) -> bool:
        """Whether a member is as short, about as good, and passes the screening if the formula does."""
        error = max(1 - agreement, _NEGLIGIBLE)
        return any(
            member.complexity <= expression.complexity
            and error > _GAIN * max(member.error, _NEGLIGIBLE)
            and (member.failed is None or failed is not None)
            for member in self.members
        )

    def _polished(self, expression: Expression) -> tuple[Expression, float]:
        """The formula fitted well, without what it does not need, with numbers of few digits, and its agreement."""
        expression, agreement = self.fitting.fitted(expression, _POLISH)
        least = _about(agreement)
        shorter = simplify(expression, lambda other: self._agreement(other) >= least)
        expression, agreement = self.fitting.fitted(shorter, _POLISH)
        least = _about(agreement)
        for digits in range(1, 6):
            numbers = [
                int(value) if value.is_integer() else value for value in _rounded(expression.coefficients, digits)
            ]
            rounded = normal_form(expression.root, numbers)
            if rounded is not None and (found := self._agreement(rounded)) >= least:
                return rounded, found
        return expression, agreement

    def _agreement(self, expression: Expression) -> float:
        return self.fitting.agreement(expression) if depends_on_both(expression) else 0.0

    def _add(self, expression: Expression, agreement: float, failed: Check | None) -> None:
        field = self._teacher.field_of(expression)
        assert field is not None
        new = Distilled(expression, agreement, self._teacher.cosines(field), self._teacher.scale(field), failed)
        self.members = [
            member
            for member in self.members
            if member.complexity < new.complexity
            or member.agreement > new.agreement
            or (failed is not None and member.failed is None)
        ]
        self.members.append(new)
