"""One short training of the proxy network with a given loss, and its validation on held-out subjects."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from lossevo.data.augmentation import Augmentation
from lossevo.errors import LossevoError
from lossevo.losses import from_spec
from lossevo.training.batches import PatchStore
from lossevo.training.measurement import Measurement
from lossevo.training.session import Session
from lossevo.training.task import TrainingData
from lossevo.training.trial import Trial
from lossevo.training.validation import Validated

CURVE_POINTS = 60


def train(trial: Trial, data: TrainingData) -> Measurement:
    """Train once; see :meth:`Trainer.train`. For many trainings on the same data keep a :class:`Trainer`."""
    return Trainer(data).train(trial)


class Trainer:
    """Trains on one set of training data; holds what all its trainings share and nothing that one leaves behind.

    Args:
        data: training data; not copied on a CPU, copied to the device once on a GPU.
        device: default CUDA if there is one, else CPU.

    Raises:
        LossevoError: a loss that is not lossevo's cannot be made here.
    """

    def __init__(self, data: TrainingData, *, device: torch.device | None = None) -> None:
        self.data = data
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings, spacing_mm = data.settings, data.volumes[0].spacing_mm
        full = settings.augmentation == "full"
        augmentation = Augmentation(settings.patch_size, spacing_mm, len(data.class_names)) if full else None
        self.patches = PatchStore(data.bank, self.device, augmentation, data.mirrored)
        for spec in data.foreign_losses:
            from_spec(spec, data.loss_modules)  # a worker that cannot make it fails now, not in every training
        self.flip_probability = settings.flip_probability if data.mirrored is not None else 0.0

    def train(
        self, trial: Trial, *, state: bytes | None = None, keep: Callable[[bytes], None] | None = None
    ) -> Measurement:
        """Train, and validate the argmax over whole volumes: by Dice at the working spacing at evenly spaced steps, by
        all the trial's metrics on its grid at the last.

        A trial that continues another is validated in its own steps alone. It goes on from ``state``, that of the
        other; without one, or with one that is damaged, it first makes the other's steps. ``keep`` gets its own state.

        Trainings with the same seed, subjects and budget differ in the loss only: initial weights, batches,
        augmentation and learning rates are the same. On a CPU the result is the same bit for bit whenever and wherever
        it runs with the same number of torch threads.

        Raises:
            LossevoError: the trial names an unknown loss or subject, is of another study, or is measured on grids that
                the data lacks; or no validation subject has foreground.
            FloatingPointError: the training loss or its gradient is not finite; the message names the step.
        """
        started = time.perf_counter()
        session = self._begun(trial, state)
        *before, last = _checkpoints(trial.continues or 0, trial.fidelity.steps, self.data.settings.validations)
        for step in before:
            session.advance(step - session.steps)
            session.validate()
        session.advance(last - session.steps)
        measurement = measured(session, trial, started)
        if keep is not None:
            keep(session.state())
        return measurement

    def _begun(self, trial: Trial, state: bytes | None) -> Session:
        """A session that stands where the trial's own steps begin."""
        begin = trial.continues or 0
        if state is not None and begin:
            session = Session(trial, self)
            with suppress(LossevoError):
                session.restore(state)
                if session.steps == begin:
                    session.validation_curve = []
                    return session
        session = Session(trial, self)
        if begin:
            session.advance(begin)
        return session


def measured(session: Session, trial: Trial, started: float) -> Measurement:
    """What a session shows where it stands: all the trial's metrics on its grid. ``started`` is the time of
    ``time.perf_counter`` when it began.
    """
    cases = session.validate(trial.metrics, grid=trial.grid)
    return Measurement(
        values={
            metric: {
                case_id: {name: found.values[metric] for name, found in case.items()} for case_id, case in cases.items()
            }
            for metric in trial.metrics
        },
        curve=session.curve.thinned(CURVE_POINTS),
        validation_curve=session.validation_curve,
        seconds=time.perf_counter() - started,
        trajectory=session.trajectory(),
        false_voxels=_false_voxels(cases),
        cut_off=_cut_off(cases),
    )


def _false_voxels(cases: Validated) -> dict[str, dict[str, int]]:
    """The voxels of classes that the label lacks, of cases that lack any."""
    counted = {
        case_id: {name: found.false_voxels for name, found in case.items() if found.false_voxels is not None}
        for case_id, case in cases.items()
    }
    return {case_id: voxels for case_id, voxels in counted.items() if voxels}


def _cut_off(cases: Validated) -> dict[str, list[str]]:
    """The classes that the border cuts off in the prediction alone, of cases that have any."""
    found = {case_id: [name for name, of_class in case.items() if of_class.cut_off] for case_id, case in cases.items()}
    return {case_id: names for case_id, names in found.items() if names}


def _checkpoints(begin: int, end: int, count: int) -> list[int]:
    """Up to ``count`` evenly spaced steps after ``begin``, ``end`` the last."""
    return sorted({begin + math.ceil((end - begin) * part / count) for part in range(1, count + 1)})
