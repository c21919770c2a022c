"""lossevo: find the loss function that trains the best 3D U-Net for a segmentation task.

>>> import lossevo
>>> loss = lossevo.losses.create("tversky", w_fp=0.3, w_fn=0.7)
>>> formula = lossevo.Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(p + y))")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossevo import losses, metrics
    from lossevo.export import load
    from lossevo.expression import Expression

__version__ = "0.1.0"

__all__ = ["Expression", "__version__", "load", "losses", "metrics"]

if not TYPE_CHECKING:
    # Imported when first used: PyTorch takes seconds to import, which `lossevo --help` need not wait for.
    def __getattr__(name: str) -> object:
        match name:
            case "losses" | "metrics":
                return import_module(f"lossevo.{name}")
            case "load":
                return import_module("lossevo.export").load
            case "Expression":
                return import_module("lossevo.expression").Expression
        raise AttributeError(f"module 'lossevo' has no attribute '{name}'")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
