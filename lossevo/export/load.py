"""``lossevo.load``: an exported loss as a module, whichever of its files is given."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from torch import nn

from lossevo.errors import LossevoError
from lossevo.export.document import DOCUMENT_FILE, read_document
from lossevo.export.program import PROGRAM_FILE, load_program
from lossevo.export.source import CLASS_NAME, SOURCE_FILE
from lossevo.losses.symbolic import ExpressionLoss


def load(path: str | os.PathLike[str], *, spacing_mm: Sequence[float] | None = None) -> nn.Module:
    """An exported loss, called as ``loss(logits, target, distance_map=None)``.

    Args:
        path: a ``.json``, ``.py`` or ``.pt2`` file that lossevo exported, or the folder of an export (then its
            ``loss.json``). Only the ``.json`` is safe from strangers: the ``.py`` is executed, and PyTorch unpickles
            parts of the ``.pt2``. Open those two from people you trust.
        spacing_mm: distance between voxels along each spatial axis, for a loss that computes distance maps itself.

    Raises:
        LossevoError: the path does not exist, or is not a loss that this version reads; the message names the file.
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
    match path.suffix:
        case ".json":
            return ExpressionLoss(read_document(path).expression, spacing_mm=spacing_mm)
        case ".pt2":
            return load_program(path, spacing_mm=spacing_mm)
        case ".py":
            return _load_source(path, spacing_mm)
    raise LossevoError(
        f"{path} is not a loss: expected a .json, .py or .pt2 file ({DOCUMENT_FILE}, {SOURCE_FILE}, {PROGRAM_FILE})"
    )


def _load_source(path: Path, spacing_mm: Sequence[float] | None) -> nn.Module:
    """Execute a ``loss.py`` and make its loss; the module is registered by content, so that the loss can be pickled."""
    try:
        source = path.read_bytes()
        module = ModuleType(f"lossevo_loss_{sha256(source).hexdigest()[:16]}")
        module.__file__ = str(path)
        # Not imported: that would leave a __pycache__ in the user's folder.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except OSError as problem:
        raise LossevoError(f"cannot read {path}: {problem.strerror}") from None
    except Exception as problem:
        raise LossevoError(f"{path} cannot be executed ({type(problem).__name__}: {problem})") from problem
    loss_class = module.__dict__.get(CLASS_NAME)
    if not (isinstance(loss_class, type) and issubclass(loss_class, nn.Module)):
        raise LossevoError(f"{path} defines no class {CLASS_NAME}(nn.Module), so lossevo did not write it")
    sys.modules[module.__name__] = module
    takes_spacing = "spacing_mm" in inspect.signature(loss_class).parameters
    loss: nn.Module = loss_class(spacing_mm=spacing_mm) if takes_spacing else loss_class()
    return loss
