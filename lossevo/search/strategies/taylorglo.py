"""TaylorGLO: CMA-ES on a third-order Taylor polynomial (Gonzalez & Miikkulainen, GECCO 2021, arXiv 2002.00059).

A loss is −f, averaged, and f a polynomial in the label y and the prediction p about a centre (c₀, c₁):

    f = c₂ u + c₃ u² + c₄ u³ + c₅ v u + c₆ v u² + c₇ v² u,    u = p − c₁,  v = y − c₀

Terms without p are left out, since they have no gradient. The factorials of the Taylor series are part of the
parameters. This form, the start at zero, sigma 1.2 and populations of 20, 28, 40 and 80 were read in the authors'
experiments (github.com/cognizant-ai-labs/TaylorGLO), as was the invariant (:func:`trainable`). The papers themselves
were not at hand.

What differs from there: the mean of the distribution is trained after each generation; a vector that violates the
invariant is drawn again, where theirs takes a place in its generation with fitness 0; a search that has converged
begins anew; a population is at most a fourth of the candidates that the budget allows; the finalists are confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lossevo.search.strategies.cma_es import Form

_POLYNOMIAL = (
    "{2} * (p - {1}) + {3} * square(p - {1}) + {4} * ((p - {1}) * square(p - {1})) + {5} * ((y - {0}) * (p - {1}))"
    " + {6} * ((y - {0}) * square(p - {1})) + {7} * (square(y - {0}) * (p - {1}))"
)


def taylor_form(wrap: str) -> Form:
    """The polynomial in the wrap of a space, with all parameters 0."""
    return Form(wrap.replace("{}", f"({_POLYNOMIAL})"), [0.0] * 8)


def trainable(parameters: Sequence[float], classes: int) -> bool:
    """The invariant of "Effective Regularization Through Loss-Function Metalearning" (arXiv 2010.00788).

    At the null epoch a network predicts 1/n for each of n classes. Descending on −f, a prediction moves with
    ∂f/∂p = a + a_p p + a_pp p² + y (a_y + a_py p) + a_yy y². What the true class gets more than another there is
    a_y + a_yy + a_py / n. It must be at least n − 2 times what the other gets: for two classes, not negative.

    The inequality is that of the authors' program. By our own reckoning a softmax moves towards the true class whenever
    the true class gets more. For two classes that is the same; for more theirs turns down other vectors.
    """
    c0, c1, c2, c3, c4, c5, c6, c7 = parameters
    plain = c2 - 2 * c3 * c1 + 3 * c4 * c1**2 - c5 * c0 + 2 * c6 * c0 * c1 + c7 * c0**2
    by_p = 2 * c3 - 6 * c4 * c1 - 2 * c6 * c0
    by_pp = 3 * c4
    by_y = c5 - 2 * c6 * c1 - 2 * c7 * c0
    by_py, by_yy = 2 * c6, c7
    other = plain + by_p / classes + by_pp / classes**2
    more = by_y + by_yy + by_py / classes
    return more >= (classes - 2) * other
