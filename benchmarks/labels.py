"""Whether labels or a one-hot target make an expression's gradient faster, and whether lossevo chooses the faster.

::

    python benchmarks/labels.py
    python benchmarks/labels.py --size 2x6x48x48x48 --losses dice,tversky

Losses of the literature as expressions, value and gradient, on one thread, in CPU time of that thread; medians over
rounds in which both ways take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from unittest import mock

import torch

from lossevo.expression.cost import labels_pay
from lossevo.losses import expression_of
from lossevo.losses.symbolic import ExpressionLoss

LOSSES = "cross_entropy,focal,dice,tversky,dice_ce,dice_focal,exp_log,baikal,sensitivity_specificity"
SIZES = ("2x2x16x56x56", "2x3x96x96x96", "2x4x16x56x56", "2x6x48x48x48")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", metavar="BxCxDxHxW", help=f"default {', '.join(SIZES)}")
    parser.add_argument("--losses", default=LOSSES)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    right = total = 0
    for size in options.size or SIZES:
        batch, classes, *spatial = map(int, size.split("x"))
        logits = torch.randn(batch, classes, *spatial, generator=generator)
        labels = torch.randint(0, classes, (batch, 1, *spatial), generator=generator)
        print(f"{size}\n{'loss':26} {'labels':>8} {'one-hot':>8}  chosen")
        for name in options.losses.split(","):
            times = milliseconds(name, logits, labels, options.rounds)
            chosen = labels_pay(expression_of(name).root, classes)
            best = (times[True] < times[False]) == chosen
            total, right = total + 1, right + best
            lost = "" if best else f", {times[chosen] / times[not chosen]:.2f} times as slow"
            print(f"{name:26} {times[True]:6.1f}ms {times[False]:6.1f}ms  {'labels' if chosen else 'one-hot'}{lost}")
    print(f"the faster one in {right} of {total} cases")


def milliseconds(name: str, logits: torch.Tensor, labels: torch.Tensor, rounds: int) -> dict[bool, float]:
    loss = ExpressionLoss(expression_of(name))
    inputs = loss.prepare(logits.requires_grad_(), labels)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds + 1):
        for hard, seconds in times.items():
            with mock.patch("lossevo.losses.symbolic.labels_pay", return_value=hard):
                start = time.thread_time()
                loss.compute_with_gradient(inputs)
                seconds.append(time.thread_time() - start)
    return {hard: 1e3 * statistics.median(seconds[1:]) for hard, seconds in times.items()}


if __name__ == "__main__":
    main()
