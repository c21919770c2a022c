"""What looking ahead costs: trainings with a loss whose parameters are learned beside trainings with what it wraps.

CPU seconds of trainings of the default task on the embedded phantom, on one core, the quickest of several, and their
ratio to the wrapped loss's::

    python benchmarks/lookahead.py
    python benchmarks/lookahead.py --loss tversky --steps 100
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lossevo.data import phantom_cohort, prepare
from lossevo.training import Fidelity, Split, TaskSettings, Trial, make_training_data
from lossevo.training.trainer import Trainer

EVERY = (1, 5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", default="dice_ce", help="the loss that is wrapped")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    torch.set_num_threads(1)
    prepared = prepare(phantom_cohort(cases=8), spacing_mm=(4.0, 4.0, 4.0))
    trainer = Trainer(make_training_data(prepared, TaskSettings(validations=1)), device=torch.device("cpu"))
    subjects = sorted({volume.subject for volume in prepared.volumes})
    specs: dict[str, dict[str, Any]] = {options.loss: {"name": options.loss}}
    # Beyond the last step: never.
    for every in (options.steps, *EVERY):
        told = "never" if every == options.steps else f"every {every}"
        specs[told] = {"name": "adaptive", "parameters": {"loss": options.loss, "every": every}}
    quickest = dict.fromkeys(specs, float("inf"))
    for _ in range(options.repeats):  # side by side, so that a busy minute slows all of them
        for told, spec in specs.items():
            split = Split(tuple(subjects[1:]), tuple(subjects[:1]))
            trial = Trial(spec, Fidelity(options.steps, 0, split))
            start = time.process_time()
            trainer.train(trial)
            quickest[told] = min(quickest[told], time.process_time() - start)

    table = Table("updates", "CPU s", f"times {options.loss}")
    for told, seconds in quickest.items():
        table.add_row(told, f"{seconds:.2f}", f"{seconds / quickest[options.loss]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
