"""How much of a score is the loss and how much is the seed: two-way analysis of the confirmation trainings of a run.

Every finalist of a search is trained with the same few new seeds, so score = mean + loss + seed + residual can be told
apart. What decides whether to give all candidates one seed: if the seed's own effect is large beside the residual,
common seeds pair them; if it is small, a common seed only lets luck with that seed be inherited::

    python benchmarks/seed_noise.py runs/mine
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from lossevo.experiment import Ledger
from lossevo.training import Measurement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    with Ledger(parser.parse_args().run / "ledger.sqlite", read_only=True) as ledger:
        for record in ledger.records():
            if record.phase == "confirmation" and record.outcome is not None and record.outcome.value is not None:
                measurement = Measurement.from_payload(record.outcome.value)
                scores[record.candidate][record.trial["seed"]] = measurement.mean("dice")
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    table = np.array([[by_seed[seed] for seed in seeds] for by_seed in scores.values() if len(by_seed) == len(seeds)])
    losses, repeats = table.shape
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    residual_sd = np.sqrt((residual**2).sum() / ((losses - 1) * (repeats - 1)))
    print(f"{losses} losses x {repeats} seeds, mean Dice {table.mean():.4f}")
    print(f"SD between the losses' means  {table.mean(axis=1).std(ddof=1):.4f}")
    print(f"SD between the seeds' means   {table.mean(axis=0).std(ddof=1):.4f}")
    print(f"residual SD (loss x seed)     {residual_sd:.4f}")


if __name__ == "__main__":
    main()
