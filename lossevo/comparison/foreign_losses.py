"""Losses under comparison that are not lossevo's: code of the user's, and what installed packages bring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lossevo.comparison.contenders import Contender
from lossevo.errors import LossevoError
from lossevo.losses import LossModule, from_spec
from lossevo.losses.foreign import check
from lossevo.training import TrainingData


def require_named(folder: Path, contenders: Sequence[Contender], named: Iterable[LossModule]) -> tuple[LossModule, ...]:
    """The code that goes on being run when a comparison is resumed: all that it needs, named once more and unchanged.

    Nothing is run.

    Raises:
        LossevoError: some of it is not named or has changed, or something else is named.
    """
    needed = {(code := LossModule.in_spec(one.spec)).identity: code for one in contenders if "module" in one.spec}
    found = {module.identity: module for module in named}
    for module in found.values():
        if module.identity in needed:
            continue
        before = next((code for code in needed.values() if code.name == module.name), None)
        if before is None:
            raise LossevoError(f"--loss-module {module}: {folder} compares no loss of this name; leave it out")
        raise LossevoError(
            f"--loss-module {module}: this is not the code that {folder} began with (sha256 {module.sha256[:12]}… "
            f"instead of {before.sha256[:12]}…); restore it, or start a new comparison"
        )
    if missing := [code for identity, code in needed.items() if identity not in found]:
        again = " ".join(f"--loss-module {code}" for code in missing)
        raise LossevoError(
            f"{folder}: this comparison runs code of {', '.join(dict.fromkeys(code.place for code in missing))}; "
            f"if you trust it, name it again with {again}"
        )
    return tuple(found.values())


def with_foreign(
    data: TrainingData, contenders: Iterable[Contender], loss_modules: tuple[LossModule, ...]
) -> TrainingData:
    """Training data that tells workers which losses are not lossevo's, and allows them to run this code."""
    specs = tuple(contender.spec for contender in contenders if contender.is_foreign)
    return replace(data, loss_modules=loss_modules, foreign_losses=specs)


def check_foreign(data: TrainingData) -> None:
    """Call every loss that is not lossevo's on a small random batch, with as many classes as the data has.

    Raises:
        LossevoError: it fails, is no finite scalar, or no finite gradient reaches the logits.
    """
    for spec in data.foreign_losses:
        loss = from_spec(spec, data.loss_modules)
        loss.use_spacing(data.volumes[0].spacing_mm)
        named = spec.get("module") or f"loss '{spec['name']}' of {spec['distribution']}"
        check(loss, named, classes=len(data.class_names), patch=data.settings.patch_size)


def foreign_told(contenders: Iterable[Contender]) -> list[str]:
    """A note on them, if there are any."""
    told = [f"{one.name} ({one.formula}; {one.origin})" for one in contenders if one.is_foreign]
    if not told:
        return []
    return [
        f"Not lossevo's: {', '.join(told)}. Whom such a loss was designed on is not on record, so leakage cannot be "
        "ruled out by lossevo."
    ]
