"""What the optimiser is told at each step: the learning-rate schedules of the training task."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lossevo.training.task import TaskSettings


@dataclass(frozen=True, slots=True)
class Rates:
    """What the optimiser is told for one step."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    eps: float = 1e-8


def rates_of(settings: TaskSettings, steps: int) -> list[Rates]:
    """The rates of each of the first ``steps`` steps of a training.

    With the one-cycle schedule ``steps`` is the length of the training, and every rate depends on it. With the constant
    schedule no rate does: a longer training begins with the rates of a shorter one.
    """
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    optimiser = torch.optim.AdamW([weight], lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if settings.schedule == "one_cycle":
        share = settings.warmup_share
        if share * steps == 1:  # PyTorch divides by share * steps - 1
            share *= 1 + 1e-9
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=settings.learning_rate, total_steps=steps, pct_start=share
        )
    else:
        warmup_steps = max(1, settings.warmup_steps)
        schedule = torch.optim.lr_scheduler.LinearLR(
            optimiser, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1
        )
    optimiser.step()  # a schedule warns if it moves before the optimiser has
    found = []
    for step in range(steps):
        group = optimiser.param_groups[0]
        beta1, beta2 = group["betas"]
        found.append(Rates(group["lr"], beta1, beta2, group["weight_decay"], group["eps"]))
        if step + 1 < steps:
            schedule.step()
    return found
