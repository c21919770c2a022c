"""What a loss that is a network costs beside Dice, on the same tensors::

    python -m benchmarks.loss_networks
    python -m benchmarks.loss_networks --sizes 2x6x48 2x2x37 --hidden 16,16 --rounds 5

Sizes, times and saved bytes are those of ``benchmarks/losses.py``. "Autograd" is the same network when its weights want
a gradient, as in meta-learning: without its own gradient, which is made a few thousand voxels at a time.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.losses import measure, saved_per_input_byte, scene
from lossevo.losses import create
from lossevo.losses.neural import LearnedLoss, LossNetwork


def loss_of(hidden: Sequence[int]) -> LearnedLoss:
    """A network of margin and target with random weights: the default of ``lossevo metalearn`` but for its training."""
    generator = torch.Generator().manual_seed(0)
    sizes = itertools.pairwise([2, *hidden, 1])
    layers = (torch.randn(after, before, generator=generator).tolist() for before, after in sizes)
    return LearnedLoss(LossNetwork(("margin", "target"), tuple(tuple(map(tuple, layer)) for layer in layers)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["2x6x48", "2x2x37"])
    parser.add_argument("--hidden", nargs="+", default=["8", "16,16", "40,40"], help="units of each hidden layer")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title="Forward and backward, one thread; saved bytes per byte of logits")
    for title in ("size", "hidden", "ms", "ms / Dice", "saved", "ms, autograd", "saved, autograd"):
        table.add_column(title, justify="right")
    for size, units in itertools.product(arguments.sizes, arguments.hidden):
        logits, labels, _ = scene(*(int(number) for number in size.split("x")))
        loss, plain = (loss_of([int(number) for number in units.split(",")]) for _ in range(2))
        plain.has_own_gradient = False
        ms, plain_ms, dice_ms = measure([loss, plain, create("dice")], logits, labels, arguments.rounds)
        saved, plain_saved = (saved_per_input_byte(one, logits, labels, [*one.buffers()]) for one in (loss, plain))
        figures = (f"{ms:.1f}", f"{ms / dice_ms:.0f}", f"{saved:.2f}", f"{plain_ms:.1f}", f"{plain_saved:.1f}")
        table.add_row(size, units, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
