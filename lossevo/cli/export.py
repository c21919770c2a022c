"""``lossevo export``: a loss of a hall of fame as files that anyone can train with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lossevo.cli import folders
from lossevo.errors import LossevoError


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    loss: Annotated[str, typer.Argument(help="Rank or id in its hall of fame.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for loss.py, loss.pt2 and loss.json.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of these names in that folder.")
    ] = False,
) -> None:
    """Export a loss as loss.py, loss.pt2 and loss.json.

    loss.py is readable and needs torch only, loss.pt2 is a torch.export program, loss.json is data.

    Each file is loaded in a fresh process and must give the value and gradient that the search evaluated.

    \b
    Examples:
      lossevo export runs/mine 1 --out my_loss
      python -c "import lossevo; print(lossevo.load('my_loss'))"
    """
    from lossevo.cli.tables import console
    from lossevo.comparison import SearchRecord
    from lossevo.experiment import hall_of_fame
    from lossevo.export import export_loss

    folders.new_place(out)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise LossevoError(f"{out} is not empty; name a new folder, or replace what is there with --overwrite")
    entry = hall_of_fame.find(hall_of_fame.read(run), loss, run)
    metadata = {
        "name": entry.id,
        "origin": str(entry.origin),
        "objective": entry.objective,
        "score": entry.score,
        "score_se": entry.score_se,
        "seeds": entry.seeds,
        "complexity": entry.complexity,
        # Kept with the loss so that a later comparison can leave out whom its search has seen.
        **SearchRecord.of_run(run, entry.id).to_metadata(),
    }
    screen = console()
    with screen.status("exporting") as status:
        report = export_loss(
            entry.definition,
            out,
            metadata=metadata,
            overwrite=overwrite,
            progress=lambda done, total, what: status.update(f"exporting {done}/{total}: {what}"),
        )
    screen.print(f"{entry.id}: {entry.unicode}", highlight=False, markup=False)
    for file in report.files:
        deviation = report.deviations[file.name]
        screen.print(
            f"  {file}  deviation in a fresh process: value {deviation.value:.1e}, gradient {deviation.gradient:.1e}",
            highlight=False,
            markup=False,
        )
    screen.print(
        f"\nUse it:\n  import lossevo; loss = lossevo.load({str(out)!r})\n"
        f"or copy {out / 'loss.py'} into your project: it needs torch only.\n"
        "Take loss.json alone from strangers: loading .py runs its code, loading .pt2 unpickles.",
        highlight=False,
        markup=False,
    )
