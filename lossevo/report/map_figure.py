"""The figure of a search's map: a point per loss, close to those that pull a network alike."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lossevo.report.style import GREY, Picture, note, shortened, styled
from lossevo.search.surrogate import SearchMap

_FAILURES = 0.1
"""The colours begin at this quantile of the scores: what scores less has the colour of the worst."""


def map_picture(search_map: SearchMap, objective: str) -> Picture:
    """The losses in the plane, coloured by score; the best is starred, and those with a name are named."""
    with styled():
        figure = Figure(figsize=(7.2, 5.4), layout="constrained")
        axes = figure.subplots()
        scores = search_map.scores
        order = np.argsort(scores, kind="stable")  # the best on top
        low, high = np.quantile(scores, _FAILURES), scores.max()
        points = axes.scatter(
            search_map.x[order], search_map.y[order], c=scores[order], s=16, cmap="viridis", vmin=low, vmax=high
        )
        best = order[-1]
        axes.plot(search_map.x[best], search_map.y[best], "*", color="#D55E00", markersize=13, markeredgecolor="w")
        for x, y, name in zip(search_map.x, search_map.y, search_map.names, strict=True):
            if name:
                axes.plot(x, y, "s", markersize=7, markerfacecolor="none", markeredgecolor=GREY)
                axes.annotate(shortened(name), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
        figure.colorbar(points, extend="min", label=objective)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("distance between unit gradients")
        note(
            figure,
            f"Star: the best. Squares: named losses. The plane shows {100 * search_map.shown:.0f} % of the squared"
            " distances; losses that lie together may still differ.",
        )
    alt = (
        f"Scatter chart of {len(scores)} losses, close together where their gradients are alike, coloured by "
        f"{objective}. Scores are in the hall of fame."
    )
    return Picture("search-map", "map", "Map of the search", alt, figure)
