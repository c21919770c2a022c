"""What every loss of the catalogue costs, beside MONAI's and a plain PyTorch version, on the same tensors::

    python benchmarks/losses.py
    python benchmarks/losses.py --losses dice dice_ce --sizes 2x6x48 --rounds 30 --csv losses.csv

A size BxCxS is a batch of B images with C classes and S³ voxels: float32 logits, int64 labels. Times are of forward and
backward on one thread, in CPU time of that thread, which other processes disturb less than time on the wall; medians
over rounds in which the contenders take turns, since a machine's speed drifts. "Saved" are the bytes that stay
allocated from forward to backward per byte of the logits: every storage once that autograd packs
(``torch.autograd.graph.saved_tensors_hooks``), except those of logits, target and distance map, which exist anyway. A
loss that takes a distance map is given one, as in training; MONAI's compute theirs in each call. MONAI has no
cross-entropy of its own: there the reference is ``torch.nn.functional.cross_entropy``, which it calls.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import monai.losses
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lossevo.analysis.cost import saved_bytes
from lossevo.losses import create, names, signed_distance_map
from lossevo.losses.base import one_hot

Loss = Callable[[Tensor, Tensor], Tensor]
SPATIAL = (2, 3, 4)
FOREGROUND = {"softmax": True, "to_onehot_y": True, "include_background": False}


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds and saved bytes per byte of the logits; None where there is no such version."""

    loss: str
    size: str
    ms: float
    saved: float
    monai_ms: float | None
    monai_saved: float | None
    plain_ms: float | None
    plain_saved: float | None


def monai_losses(classes: int) -> Mapping[str, Loss]:
    """MONAI's losses by our names, with equal parameters."""
    cl_dice = monai.losses.SoftDiceclDiceLoss(iter_=10)
    unified = monai.losses.AsymmetricUnifiedFocalLoss(to_onehot_y=True)
    references: dict[str, Loss] = {
        "cross_entropy": lambda x, y: F.cross_entropy(x, y[:, 0]),
        "focal": monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True),
        "dice": monai.losses.DiceLoss(**FOREGROUND),
        "generalized_dice": monai.losses.GeneralizedDiceLoss(softmax=True, to_onehot_y=True),
        "jaccard": monai.losses.DiceLoss(**FOREGROUND, jaccard=True),
        "tversky": monai.losses.TverskyLoss(**FOREGROUND, alpha=0.3, beta=0.7),
        "dice_ce": monai.losses.DiceCELoss(**FOREGROUND),
        "dice_focal": monai.losses.DiceFocalLoss(**FOREGROUND, squared_pred=True),
        "hausdorff_dt": monai.losses.HausdorffDTLoss(**FOREGROUND),
        "log_hausdorff_dt": monai.losses.LogHausdorffDTLoss(**FOREGROUND),
        "cldice": lambda x, y: cl_dice(x.softmax(1), hot(x, y)),
    }
    if classes == 2:
        references["unified_focal"] = lambda x, y: unified(x.softmax(1), y)
    return references


def hot(logits: Tensor, labels: Tensor) -> Tensor:
    return one_hot(labels, logits.shape[1]).to(logits.dtype)


def plain_region(index: Callable[[Tensor, Tensor, Tensor], Tensor], power: float = 1, squared: bool = False) -> Loss:
    """Mean over foreground regions of (1 - index(Σpg, Σp, Σg))^power as one writes it first."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        p, g = logits.softmax(1)[:, 1:], hot(logits, labels)[:, 1:]
        predicted, actual = (v.square() if squared else v for v in (p, g))
        return ((1 - index((p * g).sum(SPATIAL), predicted.sum(SPATIAL), actual.sum(SPATIAL))) ** power).mean()

    return loss


def plain_tversky(w_fp: float, w_fn: float, power: float = 1) -> Loss:
    return plain_region(lambda tp, p, g: tp / (tp + w_fp * (p - tp) + w_fn * (g - tp) + 1e-5), power)


def plain_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -(hot(logits, labels) * logits.log_softmax(1)).sum(1).mean()


def plain_focal(logits: Tensor, labels: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    return -(hot(logits, labels) * (1 - log_p.exp()) ** 2 * log_p).sum(1).mean()


def plain_topk(logits: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(logits, labels[:, 0], reduction="none").flatten(1)
    return loss.topk(-(-loss.shape[1] // 10), dim=1).values.mean()


def plain_generalized_dice(logits: Tensor, labels: Tensor) -> Tensor:
    p, g = logits.softmax(1), hot(logits, labels)
    weight = 1 / g.sum(SPATIAL).square().clamp_min(1)
    return (1 - 2 * (weight * (p * g).sum(SPATIAL)).sum(1) / (weight * (p + g).sum(SPATIAL)).sum(1)).mean()


def plain_sensitivity_specificity(logits: Tensor, labels: Tensor) -> Tensor:
    p, g = logits.softmax(1)[:, 1:], hot(logits, labels)[:, 1:]
    error = (g - p) ** 2
    missed = (error * g).sum(SPATIAL) / (g.sum(SPATIAL) + 1e-5)
    return (0.05 * missed + 0.95 * (error * (1 - g)).sum(SPATIAL) / ((1 - g).sum(SPATIAL) + 1e-5)).mean()


def plain_dice(squared: bool = False) -> Loss:
    return plain_region(lambda tp, p, g: 2 * tp / (p + g + 1e-5), squared=squared)


def total(*losses: Loss) -> Loss:
    return lambda x, y: sum((loss(x, y) for loss in losses), torch.zeros(()))


def plain_losses(distance_map: Tensor) -> Mapping[str, Loss]:
    """Plain PyTorch by our names, as one writes it from the formula."""
    return {
        "cross_entropy": plain_cross_entropy,
        "focal": plain_focal,
        "topk": plain_topk,
        "dice": plain_dice(),
        "generalized_dice": plain_generalized_dice,
        "jaccard": plain_tversky(1, 1),
        "tversky": plain_tversky(0.3, 0.7),
        "asymmetric_similarity": plain_tversky(1 / 3.25, 2.25 / 3.25),
        "sensitivity_specificity": plain_sensitivity_specificity,
        "boundary": lambda x, y: (distance_map[:, 1:] * x.softmax(1)[:, 1:]).mean(),
        "dice_ce": total(plain_dice(), plain_cross_entropy),
        "dice_focal": total(plain_dice(squared=True), plain_focal),
        "dice_topk": total(plain_dice(), plain_topk),
        "focal_tversky": plain_tversky(0.3, 0.7, 0.75),
    }


def scene(batch: int, classes: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and distance map of slabs, one per foreground class, in a cube of half the side."""
    labels = torch.zeros(batch, 1, side, side, side, dtype=torch.int64)
    quarter, half = side // 4, side // 2
    for label in range(1, classes):
        first, last = (quarter + half * k // (classes - 1) for k in (label - 1, label))
        labels[:, :, first:last, quarter : quarter + half, quarter : quarter + half] = label
    member = one_hot(labels, classes)
    noise = torch.randn(member.shape, generator=torch.Generator().manual_seed(0))
    return (noise + 2 * member).requires_grad_(), labels, signed_distance_map(member, (1.0, 1.0, 1.0))


def measure(losses: Sequence[Loss], logits: Tensor, labels: Tensor, rounds: int) -> list[float]:
    """Median CPU milliseconds of forward and backward of each loss; the first round is for warming up."""
    times: list[list[float]] = [[] for _ in losses]
    for _ in range(rounds + 1):
        for loss, seconds in zip(losses, times, strict=True):
            logits.grad = None
            start = time.thread_time()
            loss(logits, labels).backward()  # type: ignore[no-untyped-call]
            seconds.append(time.thread_time() - start)
    return [1e3 * statistics.median(seconds[1:]) for seconds in times]


def saved_per_input_byte(loss: Loss, logits: Tensor, labels: Tensor, given: Sequence[Tensor]) -> float:
    """Bytes that autograd keeps, without those of the tensors given, per byte of the logits."""
    saved = saved_bytes(lambda: loss(logits, labels), given=(logits, labels, *given))
    return saved / logits.untyped_storage().nbytes()


def compare(name: str, size: str, rounds: int) -> Row:
    """One row of the table."""
    batch, classes, side = (int(number) for number in size.split("x"))
    logits, labels, distance_map = scene(batch, classes, side)
    module = create(name)
    contenders: list[Loss | None] = [
        lambda x, y: module(x, y, distance_map),
        monai_losses(classes).get(name),
        plain_losses(distance_map).get(name),
    ]
    present = [loss for loss in contenders if loss is not None]
    times = iter(measure(present, logits, labels, rounds))
    figures: list[float | None] = []
    for loss in contenders:
        saved = None if loss is None else saved_per_input_byte(loss, logits, labels, [distance_map])
        figures += [None if loss is None else next(times), saved]
    return Row(name, size, *figures)  # type: ignore[arg-type]


def table(size: str, rows: Sequence[Row]) -> Table:
    """The rows of one size, with ratios."""

    def cells(row: Row) -> list[str]:
        others = [(row.monai_ms, row.monai_saved), (row.plain_ms, row.plain_saved)]
        figures = [row.ms, row.saved]
        texts = [f"{row.ms:.1f}", f"{row.saved:.2f}"]
        for other in others:
            texts += [
                "" if theirs is None else f"{ours / theirs:.2f}" for ours, theirs in zip(figures, other, strict=True)
            ]
        return [row.loss, *texts]

    result = Table(title=f"{size}³: forward and backward, one thread; saved bytes per byte of logits; ours / theirs")
    for header in ("loss", "ms", "saved", "ms / MONAI", "saved / MONAI", "ms / plain", "saved / plain"):
        result.add_column(header, justify="left" if header == "loss" else "right")
    for row in rows:
        result.add_row(*cells(row))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", default=names(), choices=names(), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", default=["2x6x48", "2x2x96"], metavar="BxCxS")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for size in chosen.sizes:
        of_size = [compare(name, size, chosen.rounds) for name in chosen.losses]
        Console(width=110).print(table(size, of_size))
        rows += of_size
    if chosen.csv:
        with chosen.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()
