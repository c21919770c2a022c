"""Losses of the catalogue with parameters, as contenders: a YAML file of names and specifications.

::

    adaptive_tversky: {name: adaptive, parameters: {loss: tversky, every: 10}}
    tversky_recall: {name: tversky, parameters: {w_fp: 0.1, w_fn: 0.9}, learning_rate: 0.02}

``lossevo tune`` writes such files. They name the folder of the tuning, which says whom a loss was tuned on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from lossevo.comparison.contenders import Contender, contenders_from
from lossevo.comparison.nested import nested
from lossevo.comparison.provenance import SearchRecord
from lossevo.configuration_file import checked, read
from lossevo.errors import LossevoError
from lossevo.losses import LossModule, create, describe
from lossevo.losses.catalogue import named_spec

_EXPECTS = "NAME: {name: LOSS, parameters: {...}, learning_rate: ...}"


class _Specs(RootModel[dict[str, dict[str, Any]]]):
    """The file."""


class _Spec(BaseModel):
    """A loss of the catalogue, and what is chosen of its parameters and of its trainings' learning rate.

    ``tuned_in`` is the folder of the tuning that chose them, as seen from the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    learning_rate: float | None = Field(None, gt=0)
    tuned_in: Path | None = None


def read_specs(path: Path) -> tuple[Contender, ...]:
    """The losses of a file, in its order, under its names.

    Raises:
        LossevoError: no such file, not YAML of this form, or no such loss or parameter.
    """
    found = []
    for name, document in read(_Specs, path, expects=_EXPECTS).root.items():
        source = f"{path}: {name}"
        spec = checked(_Spec, document, source)
        try:
            create(spec.name, **spec.parameters)
        except LossevoError as problem:
            raise LossevoError(f"{source}: {problem}") from None
        rate = {} if spec.learning_rate is None else {"learning rate": spec.learning_rate}
        chosen = ", ".join(f"{key}={value}" for key, value in {**spec.parameters, **rate}.items())
        tuned = None if spec.tuned_in is None else SearchRecord.of_tuning(path.parent / spec.tuned_in, spec.name)
        found.append(
            Contender(
                name=name,
                spec=named_spec(spec.name, **spec.parameters),
                formula=describe(spec.name).formula,
                origin=f"{spec.name}({chosen}) of {path.name}",
                search=tuned,
                learning_rate=spec.learning_rate,
                tuned=tuned is not None,
            )
        )
    if not found:
        raise LossevoError(f"{path}: it names no loss; expected {_EXPECTS}")
    return tuple(found)


def contenders_with_specs(
    losses: Iterable[str] = (),
    hof: Iterable[str] = (),
    loss_files: Iterable[Path] = (),
    specs: Iterable[Path] = (),
    loss_modules: Sequence[LossModule] = (),
) -> tuple[Contender, ...]:
    """Those of :func:`contenders_from`, and after them those of the files ``specs``; searches inside folds are one.

    The file names no code: a loss that is code of the user's has no parameters to choose.

    Raises:
        LossevoError: as :func:`contenders_from`, :func:`~lossevo.comparison.nested.nested` and :func:`read_specs`, a
            name that is taken, or the same loss twice.
    """
    given = list(losses), list(hof), list(loss_files)
    files = list(specs)
    some = any(given) or loss_modules or not files
    contenders = list(contenders_from(*given, loss_modules=loss_modules, join=nested)) if some else []
    for file in files:
        for added in read_specs(file):
            for other in contenders:
                if other.name == added.name:
                    raise LossevoError(
                        f"{file}: {added.name}: a loss of this name is compared already; name it otherwise"
                    )
                if other.identity == added.identity:
                    raise LossevoError(f"the same loss twice: {other.name}, and {added.name} of {file}; leave one out")
            contenders.append(added)
    return tuple(contenders)
