"""Time and memory of a meta-gradient: how large a network and patch fit, and what looking further ahead costs.

    python benchmarks/metalearning.py [--patch 48 48 48] [--batch 2] [--inner-steps 1 4]

Each line is a process of its own, with one thread: the peak of its resident memory (the interpreter and PyTorch take
some 400 MiB of it), and the time of one task of an outer step as the median of three. ``plain`` is an ordinary training
step, forward, backward and AdamW, of the same network and batch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

NETWORKS = {
    "default, 8-16-32": {"channels": (8, 16, 32), "strides": (2, 2)},
    "16-32-64 at full resolution": {"channels": (16, 32, 64), "strides": (1, 2)},
    "32-64-128-256 residual at full resolution": {
        "channels": (32, 64, 128, 256),
        "strides": (1, 2, 2),
        "residual_units": 2,
    },
}
INNER_STEPS = (1, 4, 8)


def measure(network: str, inner_steps: int, patch: tuple[int, int, int], batch_size: int, repeats: int) -> None:
    """Print seconds of a task and of a plain step, and the peak in MiB."""
    import torch
    from torch import Tensor
    from torch.func import functional_call

    from lossevo.losses import create
    from lossevo.losses.neural import LearnedLoss
    from lossevo.metalearning.networks import random_network
    from lossevo.training import TaskSettings
    from lossevo.training.batches import Batch
    from lossevo.training.differentiable import DifferentiableTraining, Tensors, meta_gradient
    from lossevo.training.network import build_network
    from lossevo.training.schedule import rates_of

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    settings = TaskSettings(patch_size=patch, batch_size=batch_size, **NETWORKS[network])
    unet = build_network(settings, channel_count=1, class_count=2, seed=0, device=torch.device("cpu"))
    loss = LearnedLoss(random_network(("margin", "target"), (16, 16), "elu", generator))
    weights = loss.weights

    def inner(logits: Tensor, batch: Batch, parameters: Tensors) -> Tensor:
        return functional_call(loss, dict(zip(weights, parameters, strict=True)), (logits, batch.label))

    def a_batch() -> Batch:
        image = torch.randn(batch_size, 1, *patch, generator=generator)
        return Batch(image, (image > 1.5).long(), None)

    training = DifferentiableTraining(unet, inner)
    outer_loss, outer_batch = create("dice_ce"), a_batch()
    state, rates = training.initial(), rates_of(settings, inner_steps + 1)
    batches = [a_batch() for _ in range(inner_steps)]

    def task() -> None:
        meta_gradient(
            training,
            state,
            batches,
            rates[:inner_steps],
            tuple(weights.values()),
            [lambda w: outer_loss(training.logits(w, outer_batch.image), outer_batch.label)],
        )

    def median_s(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    plain = median_s(lambda: training.advance(state, batches[0], tuple(weights.values()), rates[0]))
    whole = median_s(task)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{network:44} {inner_steps:5} {whole:9.2f} {plain:9.3f} {whole / plain:7.1f} {peak_mib:9.0f}", flush=True)


def main() -> None:
    """Measure every network, each in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--patch", type=int, nargs=3, default=(48, 48, 48))
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--inner-steps", type=int, nargs="+", default=INNER_STEPS)
    options.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    patch = tuple(chosen.patch)
    if chosen.only:
        measure(chosen.only[0], int(chosen.only[1]), patch, chosen.batch, chosen.repeats)
        return
    print(f"patch {'×'.join(map(str, patch))}, batch {chosen.batch}")
    print(f"{'network':44} {'steps':>5} {'task, s':>9} {'plain, s':>9} {'ratio':>7} {'peak, MiB':>9}", flush=True)
    for network in NETWORKS:
        for inner_steps in chosen.inner_steps:
            subprocess.run([sys.executable, *sys.argv, "--only", network, str(inner_steps)], check=True)


if __name__ == "__main__":
    main()
