from __future__ import annotations

import pytest

from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.literature import literature_name
from tests.networks import CROSS_ENTROPY


@pytest.mark.parametrize("name", expressible_names())
def test_a_loss_of_the_catalogue_is_known_by_its_formula(name):
    assert literature_name(Expression.from_json(expression_of(name).to_json())) == name


@pytest.mark.parametrize(
    "definition",
    [
        Expression.parse("class_mean(mean(y / p))"),
        # Cross-entropy and Tversky with other coefficients than the published ones.
        Expression.parse("-1.1 * class_sum(mean(y * logp))"),
        Expression.parse(str(expression_of("tversky")).replace("0.3", "0.31")),
        CROSS_ENTROPY,
    ],
)
def test_anything_else_is_no_loss_of_the_literature(definition):
    assert literature_name(definition) is None
