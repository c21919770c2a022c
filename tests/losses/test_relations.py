"""The table of which loss is a special case of which holds in value and gradient."""

from __future__ import annotations

import pytest
import torch

from lossevo.losses import create, names, parameters
from lossevo.losses.relations import RELATIONS, TWO_CLASSES, relations_of


@pytest.mark.parametrize("relation", RELATIONS, ids=str)
def test_identity(relation):
    generator = torch.Generator().manual_seed(0)
    classes = 2 if relation.condition == TWO_CLASSES else 3
    logits = torch.randn(2, classes, 4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, classes, (2, 1, 4, 5, 6), generator=generator)
    losses = (
        create(relation.special, **relation.special_parameters),
        create(relation.general, **relation.general_parameters),
    )
    values = [loss(logits, target) for loss in losses]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


@pytest.mark.parametrize("relation", RELATIONS, ids=str)
def test_it_is_of_the_catalogue_and_makes_a_difference(relation):
    assert {relation.special, relation.general} <= set(names())
    assert relation.special_parameters.keys() <= parameters(relation.special).keys()
    known = parameters(relation.general)
    assert all(known[key] != value for key, value in relation.general_parameters.items())


def test_relations_of_either_side():
    assert all("dice" in (relation.special, relation.general) for relation in relations_of("dice"))
    assert {relation.special for relation in relations_of("tversky")} >= {"dice", "tversky"}


def test_as_text():
    assert "dice(smooth=0) = tversky(w_fp=0.5, w_fn=0.5, smooth=0)" in map(str, RELATIONS)
