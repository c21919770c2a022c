"""From files to batches: how long do reading, checking and caching a cohort take, and how much memory?

Each row is measured in a process of its own, on an empty cache first and on the filled one then; memory is the peak
resident set of that process, less what its imports take::

    python benchmarks/data.py --data DIR
    python benchmarks/data.py --data DIR --spacing 1.5 1.5 1.5 --patch-size 32 112 112 --bound 256

The last rows prepare the same cohort finely, hold it in memory or to the bound (MiB), and go through two epochs of
batches and all validation volumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossevo.training import TrainingData


def main() -> None:
    options = parse_options()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    print(f"{'':44}{'seconds':>9}{'MiB':>8}")
    with tempfile.TemporaryDirectory(prefix="lossevo-benchmark-") as cache:
        options.cache = cache
        row("check the files (lossevo data check)", child(options, "check"))
        row("read, check, prepare, write to the cache", child(options, "prepare"))
        row("the same from the cache", child(options, "prepare"))
        row("cut the default task's patches into memory", child(options, "bank"))
        for augmentation in ("flip", "full"):
            measured = child(options, augmentation)
            print(f"a batch of the default task, {augmentation + ':':14}{measured['ms']:9.1f} ms of one core")
        held = child(options, "epochs", "--bound", "1000000")
        finely = "×".join(f"{side:g}" for side in options.spacing)
        row(f"{finely} mm in memory ({held['needed_mib']:.0f} MiB), two epochs", held)
        row(f"the same within {options.bound} MiB, first time", child(options, "epochs"))
        row("and again", child(options, "epochs"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a cohort (docs/data.md)")
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.5, 1.5, 1.5), metavar="MM")
    parser.add_argument("--patch-size", type=int, nargs=3, default=(32, 112, 112), metavar="VOXELS")
    parser.add_argument("--bound", type=int, default=256, metavar="MIB", help="the patch cache of the last rows")
    parser.add_argument(
        "--measure", choices=["check", "prepare", "bank", "flip", "full", "epochs"], help=argparse.SUPPRESS
    )
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(options: argparse.Namespace, what: str, *more: str) -> dict[str, float]:
    sides = [*map(str, options.spacing)], [*map(str, options.patch_size)]
    command = [sys.executable, __file__, "--measure", what, "--data", str(options.data), "--cache", options.cache]
    command += ["--spacing", *sides[0], "--patch-size", *sides[1], "--bound", str(options.bound), *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def row(what: str, measured: dict[str, float]) -> None:
    print(f"{what:44}{measured['seconds']:9.1f}{measured['mib']:8.0f}", flush=True)


def measure(options: argparse.Namespace) -> dict[str, float]:
    import numpy as np
    import torch

    import lossevo.losses.signed_distance  # noqa: F401 - what is imported here is not measured
    from lossevo.data import MERGED, Cache, prepare, read_cohort, relabel
    from lossevo.data.checks import check
    from lossevo.data.readers import scan
    from lossevo.training import TaskSettings, make_training_data

    torch.set_num_threads(1)
    before_mib, began = peak_mib(), time.perf_counter()
    result: dict[str, float] = {}
    if options.measure == "check":
        check(scan(options.data))
    else:
        fine = options.measure == "epochs"
        cohort = relabel(read_cohort(options.data), MERGED)
        prepared = prepare(
            cohort, spacing_mm=tuple(options.spacing) if fine else None, cache=Cache(Path(options.cache))
        )
        if options.measure == "bank":
            make_training_data(prepared, TaskSettings())
        if options.measure in ("flip", "full"):
            data = make_training_data(prepared, TaskSettings(augmentation=options.measure))
            batches = batches_of(data, steps=300)
            next(batches)  # the first waits for what is set up once
            began_cpu = time.process_time()
            count = sum(1 for _ in batches)
            result["ms"] = 1000 * (time.process_time() - began_cpu) / count
        if fine:
            settings = TaskSettings(patch_size=tuple(options.patch_size))
            data = make_training_data(prepared, settings, patch_cache_bytes=options.bound * 2**20)
            count = len(data.bank.subject)
            channels, classes = prepared.volumes[0].channels, len(prepared.class_names)
            voxels = count * int(np.prod(options.patch_size))
            volumes = sum(volume.voxels for volume in prepared.volumes)
            result["needed_mib"] = (voxels * (4 * channels + 1 + 2 * classes) + volumes * (4 * channels + 1)) / 2**20
            for _ in batches_of(data, steps=count):
                pass
            for volume in data.volumes:
                volume.read()
    return {"seconds": time.perf_counter() - began, "mib": peak_mib() - before_mib, **result}


def batches_of(data: TrainingData, *, steps: int) -> Iterator[object]:
    """As the trainer asks for them, with distance maps."""
    import numpy as np
    import torch

    from lossevo.data.augmentation import Augmentation, draw
    from lossevo.training.batches import PatchStore, draw_order

    settings, rows = data.settings, np.arange(len(data.bank.subject))
    full = settings.augmentation == "full"
    spacing_mm = data.volumes[0].spacing_mm
    augmentation = Augmentation(settings.patch_size, spacing_mm, len(data.class_names)) if full else None
    order, flips = draw_order(rows, batch_size=settings.batch_size, steps=steps, seed=0, flip_probability=0.5)
    return PatchStore(data.bank, torch.device("cpu"), augmentation).batches(
        order,
        flips,
        with_distance=True,
        draws=draw(0, steps=steps, batch_size=settings.batch_size) if full else None,
    )


def peak_mib() -> float:
    """High-water mark of this process alone; getrusage's would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
