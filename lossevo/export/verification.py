"""Verification of an export: each file, loaded in a fresh process, must give the value and gradient of the candidate.

The exporting process computes what the candidate gives on a set of cases, and leaves it in the folder. The fresh
process (:mod:`lossevo.export.verify`) loads each file, compares, and leaves a report.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lossevo
from lossevo.errors import LossevoError
from lossevo.losses.base import SegmentationLoss, one_hot
from lossevo.losses.definitions import Definition, loss_of

TOLERANCE = 1e-6
"""Largest deviation allowed. All three files repeat the formula's operations in its order, so as a rule it is 0."""

_EXPECTED = "expected.pt"
_REPORT = "report.json"
_TIMEOUT_S = 600.0
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Case:
    """Arguments of a loss, after how many steps of its schedule, and what the candidate gives for them."""

    name: str
    steps: int
    logits: Tensor
    target: Tensor
    distance_map: Tensor | None
    value: Tensor
    gradient: Tensor


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a file is from the candidate in its worst case, relative to the largest magnitude; 0 is bit-equal."""

    value: float
    gradient: float
    worst_case: str


def verify(folder: Path, files: Sequence[str], definition: Definition) -> dict[str, Deviation]:
    """Compare ``files`` of ``folder`` with the candidate in one fresh process; leaves nothing behind in the folder.

    Raises:
        LossevoError: a file does not load, or deviates by more than ``TOLERANCE``, or the gradient that the candidate
            was trained with is not that of its formula; the message says by how much.
    """
    trained = own_gradient(definition)
    if not max(trained.value, trained.gradient) <= TOLERANCE:
        raise LossevoError(
            f"the gradient that the loss was trained with is not that of its formula: in the case"
            f" '{trained.worst_case}' it deviates by {trained.gradient:.1e} ({TOLERANCE:.0e} is allowed)"
        )
    cases = [asdict(case) for case in expected_cases(definition)]
    torch.save(cases, folder / _EXPECTED)
    try:
        report = _in_fresh_process(folder, files)
    finally:
        (folder / _EXPECTED).unlink(missing_ok=True)
        (folder / _REPORT).unlink(missing_ok=True)
    for file, problem in report["problems"].items():
        raise LossevoError(f"the exported {file} does not work in a fresh process: {problem}")
    by_file = {file: Deviation(**found) for file, found in report["deviations"].items()}
    for file, found in by_file.items():
        if not max(found.value, found.gradient) <= TOLERANCE:
            raise LossevoError(
                f"the exported {file} is not the loss that was evaluated: in the case '{found.worst_case}' its value"
                f" deviates by {found.value:.1e} and its gradient by {found.gradient:.1e} ({TOLERANCE:.0e} is allowed)"
            )
    return by_file


def _in_fresh_process(folder: Path, files: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    package_root = str(Path(lossevo.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    try:
        process = subprocess.run(
            [sys.executable, "-m", "lossevo.export.verify", str(folder.resolve()), *files],
            env={**os.environ, "PYTHONPATH": search_path},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LossevoError(f"the process that verifies the export did not end within {_TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise LossevoError(f"the process that verifies the export ended with status {process.returncode}: {last}")
    report: Mapping[str, Mapping[str, Any]] = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    return report


def compare(folder: Path, files: Sequence[str]) -> None:
    """The fresh process's part: load and compare each file, write the report."""
    from lossevo.export.load import load

    torch.set_num_threads(1)
    cases = [Case(**case) for case in torch.load(folder / _EXPECTED, weights_only=True)]
    found, problems = {}, {}
    for file in files:
        try:
            found[file] = asdict(_worst(_through_autograd(load(folder / file)), cases))
        except Exception as problem:
            problems[file] = f"{type(problem).__name__}: {problem}"
    report = {"deviations": found, "problems": problems}
    (folder / _REPORT).write_text(json.dumps(report), encoding="utf-8")


def _through_autograd(loss: nn.Module) -> nn.Module:
    """The loss without a gradient of its own, which equals that of the formula up to rounding only."""
    if isinstance(loss, SegmentationLoss):
        loss.has_own_gradient = False
    return loss


def deviations(loss: nn.Module, cases: Sequence[Case]) -> list[Deviation]:
    """How far a loss is from what the candidate gives in each case, moved on by as many steps."""
    found = []
    done = 0
    for case in cases:
        done = _advanced(loss, done, case.steps)
        value, gradient = value_and_gradient(loss, case.logits, case.target, case.distance_map)
        found.append(Deviation(deviation(value, case.value), deviation(gradient, case.gradient), case.name))
    return found


def _worst(loss: nn.Module, cases: Sequence[Case]) -> Deviation:
    # A network that holds its loss switches it, too.
    nn.Sequential(loss).train().eval().train()
    return max(deviations(loss, cases), key=lambda one: max(one.value, one.gradient))


def expected_cases(definition: Definition) -> list[Case]:
    """What the formula gives, through autograd, on inputs of every form that the call convention allows."""
    loss = _through_autograd(loss_of(definition))
    generator = torch.Generator().manual_seed(0)
    cases = []
    done = 0
    for steps, name, channels, shape in (
        (0, "labels", 2, (2, 8, 10, 12)),
        (1, "one-hot target", 4, (1, 5, 6, 7)),
        (20, "one logit", 1, (2, 6, 5, 4)),
        (37, "one logit, shares in bfloat16", 1, (2, 5, 4)),
        (50, "2D", 3, (2, 9, 11)),
        (64, "saturated logits", 2, (1, 6, 7, 5)),
        (99, "empty foreground", 4, (2, 4, 6, 5)),
        (101, "float64", 3, (2, 4, 5, 3)),
        (102, "a class in one image alone", 4, (2, 5, 4, 6)),
        (103, "one-hot target, a class in one image alone", 4, (2, 4, 6, 5)),
    ):
        done = _advanced(loss, done, steps)
        batch, *spatial = shape
        logits = 3 * torch.randn(batch, channels, *spatial, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, max(2, channels), (batch, 1, *spatial), generator=generator)
        distance_map = None
        if loss.uses_distance_map and name != "labels":
            distance_map = 15 * torch.randn(logits.shape, generator=generator)
        if name == "saturated logits":
            logits = 50 * logits.sign()
        if name == "empty foreground":
            labels = torch.zeros_like(labels)
        if name.endswith("a class in one image alone"):
            labels[0][labels[0] == 2] = 0
        target = one_hot(labels, channels).float() if name.startswith("one-hot target") else labels
        if name.endswith("bfloat16"):
            target = torch.rand(labels.shape, generator=generator).bfloat16()
        logits = logits if name == "float64" else logits.float()
        found = value_and_gradient(loss, logits, target, distance_map)
        cases.append(Case(name, steps, logits, target, distance_map, *found))
    return cases


def _advanced(loss: nn.Module, done: int, steps: int) -> int:
    """Move the loss on from one number of steps to another; one that does not change may have no ``step()``."""
    for _ in range(done, steps):
        if callable(step := getattr(loss, "step", None)):
            step()
    return steps


def own_gradient(definition: Definition) -> Deviation:
    """How far the gradient that the candidate was trained with is from that of its formula, in float64."""
    formula = _through_autograd(loss_of(definition))
    cases = []
    done = 0
    for case in expected_cases(definition):
        done = _advanced(formula, done, case.steps)
        logits = case.logits.double()
        value, gradient = value_and_gradient(formula, logits, case.target, case.distance_map)
        cases.append(replace(case, logits=logits, value=value, gradient=gradient))
    return _worst(loss_of(definition), cases)


def value_and_gradient(
    loss: nn.Module, logits: Tensor, target: Tensor, distance_map: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient with respect to the logits."""
    if isinstance(loss, SegmentationLoss):
        loss.looks_for_soft_targets = 0  # they are ours
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target, distance_map)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest |found - expected|, relative to the largest |expected|; infinite if shape, type or NaNs differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return math.inf
    different = (found != expected) & ~(found.isnan() & expected.isnan())
    if not bool(different.any()):
        return 0.0
    largest = float((found - expected)[different].abs().max())
    scale = float(expected.nan_to_num(posinf=0, neginf=0).abs().max())
    return largest / max(scale, _SMALLEST) if math.isfinite(largest) else math.inf
