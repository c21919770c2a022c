"""``lossevo.load``: an exported loss as a module, whichever of its files is given."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lossevo.errors import LossevoError
from lossevo.export.document import DOCUMENT_FILE, read_document
from lossevo.export.program import PROGRAM_FILE, ProgramLoss, export_program, load_program
from lossevo.export.source import CLASS_NAME, SOURCE_FILE, check_intact
from lossevo.losses import arguments
from lossevo.losses.definitions import loss_of


def load(
    path: str | os.PathLike[str], *, spacing_mm: Sequence[float] | None = None, compile: bool = False
) -> nn.Module:
    """An exported loss, called as ``loss(logits, target, distance_map=None)``.

    Args:
        path: a ``.json``, ``.py`` or ``.pt2`` file that lossevo exported, or the folder of an export (then its
            ``loss.json``). Only the ``.json`` is safe from strangers: the ``.py`` is executed, and PyTorch unpickles
            parts of the ``.pt2``. Open those two from people you trust.
        spacing_mm: distance between voxels along each spatial axis, for a loss that computes distance maps itself.
        compile: compile the formula with ``torch.compile``, which takes seconds for every new kind of input. Measure
            whether it pays: on a CPU it often does not.

    Raises:
        LossevoError: the path does not exist, is damaged, or is not a loss that this version reads; the message names
            the file. With ``compile``, PyTorch cannot compile here: on a CPU it needs a C++ compiler.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / DOCUMENT_FILE).is_file():
            raise LossevoError(
                f"{path} holds no {DOCUMENT_FILE}; name the file to load (a .py or .pt2 only if you trust its source)"
            )
        path = path / DOCUMENT_FILE
    if not path.is_file():
        raise LossevoError(f"{path} does not exist; give the folder of an export or one of its files")
    spacing_mm = arguments.spacing("spacing_mm", spacing_mm)
    loss: nn.Module
    match path.suffix:
        case ".json":
            definition = read_document(path).definition
            if compile:  # a graph is what compiles best
                loss = ProgramLoss(export_program(definition), spacing_mm=spacing_mm)
            else:
                loss = loss_of(definition, spacing_mm=spacing_mm)
        case ".pt2":
            loss = load_program(path, spacing_mm=spacing_mm)
        case ".py":
            loss = _load_source(path, spacing_mm)
        case _:
            raise LossevoError(
                f"{path} is not a loss: expected a .json, .py or .pt2 file"
                f" ({DOCUMENT_FILE}, {SOURCE_FILE}, {PROGRAM_FILE})"
            )
    return _compiled(loss, path) if compile else loss


def _load_source(path: Path, spacing_mm: Sequence[float] | None) -> nn.Module:
    """Execute a ``loss.py`` and make its loss."""
    try:
        source = path.read_bytes()
    except OSError as problem:
        raise LossevoError(f"cannot read {path}: {problem.strerror}") from None
    check_intact(source.decode(errors="replace"), name=str(path))
    loss_class = _executed(source, str(path))
    try:
        takes_spacing = "spacing_mm" in inspect.signature(loss_class).parameters
        loss: nn.Module = loss_class(spacing_mm=spacing_mm) if takes_spacing else loss_class()
    except Exception as problem:
        raise LossevoError(f"{path}: its {CLASS_NAME} cannot be made ({_in_a_line(problem)})") from problem
    return loss


def _in_a_line(problem: BaseException) -> str:
    """What an exception says, short."""
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"


def _executed(source: bytes, name: str) -> type[nn.Module]:
    """The class that a ``loss.py`` defines; its losses can be pickled."""
    module = ModuleType(f"lossevo_loss_{sha256(source).hexdigest()[:16]}")
    module.__file__ = name
    try:
        # Not imported: that would leave a __pycache__ in the user's folder.
        exec(compile(source, name, "exec"), module.__dict__)
    except (Exception, SystemExit) as problem:
        raise LossevoError(f"{name} cannot be executed ({_in_a_line(problem)})") from problem
    loss_class = module.__dict__.get(CLASS_NAME)
    if not (isinstance(loss_class, type) and issubclass(loss_class, nn.Module)):
        raise LossevoError(f"{name} defines no class {CLASS_NAME}(nn.Module), so lossevo did not write it")
    sys.modules[module.__name__] = module

    def reduce(loss: nn.Module) -> tuple[Any, ...]:
        # A spawned process has no such module: it is given the source.
        return _unpickled, (source, name), loss.__getstate__()  # type: ignore[no-untyped-call]

    loss_class.__reduce__ = reduce  # type: ignore[assignment]
    return loss_class


def _unpickled(source: bytes, name: str) -> nn.Module:
    module = sys.modules.get(f"lossevo_loss_{sha256(source).hexdigest()[:16]}")
    loss_class = getattr(module, CLASS_NAME) if module else _executed(source, name)
    loss: nn.Module = loss_class.__new__(loss_class)
    return loss


def _compiled(loss: nn.Module, path: Path) -> nn.Module:
    """The loss, its formula compiled; tried once, so that what is missing is told now and not in a training."""
    if isinstance(loss, ProgramLoss):
        loss.compile(dynamic=True)
    else:
        # The functions of its module belong to this loss alone. Checks and distance maps stay as they are.
        functions = type(loss).forward.__globals__
        functions["formula"] = torch.compile(functions["formula"], dynamic=True)
    logits = torch.zeros(2, 3, 4, 5, 6, requires_grad=True)
    try:
        loss(logits, torch.zeros(2, 1, 4, 5, 6, dtype=torch.int64)).backward()
    except Exception as problem:
        reason = str(problem).strip().partition("\n")[0][:200]
        raise LossevoError(
            f"PyTorch cannot compile {path} here ({type(problem).__name__}: {reason}); on a CPU torch.compile needs a"
            " C++ compiler: install one (g++ or clang), or load the loss without compile=True"
        ) from problem
    return loss
