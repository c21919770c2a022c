from __future__ import annotations

import numpy as np

from lossevo.report.map_figure import map_picture
from lossevo.report.style import rendered
from lossevo.search.surrogate import SearchMap


def search_map(count: int = 30) -> SearchMap:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((count, 3))
    distances = np.square(points[:, None] - points[None]).sum(axis=2)
    names = ["dice", "a$b", *[""] * (count - 2)]
    return SearchMap.of(names, distances, [0.0, *rng.uniform(0.7, 0.8, count - 1)])


def test_a_point_for_each_loss_the_best_starred_and_names_where_there_are_any():
    drawn = search_map()
    axes = map_picture(drawn, "dice").figure.axes[0]
    points = axes.collections[0]
    assert len(points.get_offsets()) == 30
    assert {text.get_text() for text in axes.texts} == {"dice", "a$b"}
    star = axes.lines[0].get_xydata()[0]
    best = drawn.scores.argmax()
    assert star.tolist() == [drawn.x[best], drawn.y[best]]


def test_a_failure_does_not_take_all_the_colours():
    points = map_picture(search_map(), "dice").figure.axes[0].collections[0]
    assert points.norm.vmin > 0.6


def test_the_same_map_has_the_same_bytes():
    assert rendered(map_picture(search_map(), "dice").figure, "svg") == rendered(
        map_picture(search_map(), "dice").figure, "svg"
    )


def test_one_loss_is_a_map_too():
    drawn = SearchMap.of(["dice"], np.zeros((1, 1)), [0.7])
    assert rendered(map_picture(drawn, "dice").figure, "png")
