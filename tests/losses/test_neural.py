"""A loss that is a network: against a slow loop in value and gradient, as plain data, and as a loss like any other."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossevo.analysis.cost import saved_bytes
from lossevo.errors import LossevoError
from lossevo.losses import create, from_spec, neural, signed_distance_map
from lossevo.losses.base import one_hot
from lossevo.losses.neural import ACTIVATIONS, MAX_LAYERS, MAX_UNITS, LearnedLoss, LossNetwork
from lossevo.metalearning.networks import cross_entropy_network
from tests.losses.every_loss import assert_same, example, value_and_gradient
from tests.losses.voxel_loops import GEOMETRIES, KINDS, SPACING_MM, labels, signed_distance
from tests.networks import CROSS_ENTROPY, random_network

# What it computes

_BY_DEFINITION = {
    "elu": lambda z: torch.where(z > 0, z, z.clamp(max=0).exp() - 1),
    "relu": lambda z: torch.where(z > 0, z, 0),
    "softplus": lambda z: z.clamp(min=0) + (-z.abs()).exp().log1p(),
    "tanh": lambda z: 1 - 2 / ((2 * z).exp() + 1),
}


def by_loop(net, logits, shares, distance_mm):
    """The loss of logits (B, C or 1, *spatial), voxel by voxel; shares and distances are (B, C, *spatial)."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    x, g, phi = (tensor.flatten(2) for tensor in (logits, shares, distance_mm))
    images, classes, voxels = x.shape
    terms = []
    for b, c, i in itertools.product(range(images), range(1, classes), range(voxels)):
        others = torch.stack([x[b, k, i] for k in range(classes) if k != c]).logsumexp(dim=0)
        read = {
            "margin": x[b, c, i] - others,
            "probability": 1 / (x[b, :, i] - x[b, c, i]).exp().sum(),
            "target": 2 * g[b, c, i] - 1,
            "distance": (phi[b, c, i] / 20).clamp(-1, 1),
            "frequency": g[:, c].mean(),
        }
        values = torch.stack([read[name] for name in net.inputs])
        for layer in net.layers[:-1]:
            values = _BY_DEFINITION[net.activation](torch.tensor(layer, dtype=torch.float64) @ values)
        terms.append(_BY_DEFINITION["softplus"](torch.tensor(net.layers[-1][0], dtype=torch.float64) @ values))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_and_gradient_equal_the_loop(activation, geometry, saturated):
    batch, channels, spatial = geometry
    count, rng = max(2, channels), np.random.default_rng(7)
    net = random_network(activation=activation, seed=batch + channels)
    loss = LearnedLoss(net, spacing_mm=SPACING_MM[len(spatial)])
    for kind in (KINDS[(batch + channels) % len(KINDS)], "random", "soft"):
        shape = (batch, channels, *spatial)
        values = rng.choice([-50.0, 50.0], shape) + rng.normal(0, 0.1, shape) if saturated else rng.normal(0, 2, shape)
        logits = torch.tensor(values, requires_grad=True)
        if kind == "soft":
            target = torch.tensor(rng.dirichlet([1.0] * count, (batch, *spatial))).movedim(-1, 1)
            shares, distance_mm = target, torch.tensor(rng.normal(0, 15, target.shape))
            given_map = distance_mm
        else:
            target = labels(kind, batch, count, spatial, rng)
            shares = one_hot(target, count).double()
            distance_mm, given_map = torch.tensor(signed_distance(shares.numpy(), SPACING_MM[len(spatial)])), None
        expected = by_loop(net, logits, shares, distance_mm)
        (expected_gradient,) = torch.autograd.grad(expected, logits)
        found = value_and_gradient(loss, logits, target, given_map)
        # PyTorch's softplus is its argument above 20, 2e-9 less than it should be.
        assert_same(found, (expected.detach(), expected_gradient), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("inputs", [("margin", "target"), ("target", "probability"), ("frequency", "margin", "target")])
def test_inputs_are_taken_in_their_order(inputs):
    logits, target = example(3, (2, 3, 2))
    shares = one_hot(target, 3).double()
    net = random_network(inputs, hidden=(3,))
    expected = by_loop(net, logits, shares, torch.zeros_like(shares))
    torch.testing.assert_close(LearnedLoss(net)(logits, target), expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_network_can_be_cross_entropy(channels):
    logits, target = example(channels, (4, 5, 6))
    cross_entropy = value_and_gradient(create("cross_entropy"), logits, target)
    assert_same(value_and_gradient(LearnedLoss(CROSS_ENTROPY), logits, target), cross_entropy)


# Derivatives


@pytest.mark.parametrize("at_once", [8, 60, 2**18])
def test_its_own_gradient_is_autograds_however_many_voxels_are_taken_at_once(monkeypatch, at_once):
    monkeypatch.setattr(neural, "_AT_ONCE_ON_CPU", at_once)
    logits, target = example(3, (4, 5, 6))
    loss, plain = LearnedLoss(random_network()), LearnedLoss(random_network())
    plain.has_own_gradient = False
    assert_same(value_and_gradient(loss, logits, target), value_and_gradient(plain, logits, target))


def test_only_the_gradient_is_kept_for_the_backward_pass():
    logits, target = example(3, (8, 8, 8), dtype=torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        LearnedLoss(random_network(("margin", "target"), hidden=(16, 16)))(logits, target)
        inside = len(kept)
        value = LearnedLoss(random_network(("margin", "target"), hidden=(16, 16)))(logits, target)
    assert inside < len(kept)
    assert value.grad_fn is not None
    assert [x.shape for x in value.grad_fn.saved_tensors] == [logits.shape]


@pytest.mark.parametrize("activation", ["elu", "softplus", "tanh"])
def test_derivatives_of_derivatives_by_logits_and_weights(activation):
    """What meta-learning differentiates: the gradient of the logits, by the weights."""
    loss = LearnedLoss(random_network(hidden=(3,), activation=activation))
    logits, target = example(3, (2, 2))
    names = [*loss.weights]
    weights = [weight.clone().requires_grad_() for weight in loss.weights.values()]

    def function(x, *given):
        return torch.func.functional_call(loss, dict(zip(names, given, strict=True)), (x, target))

    assert torch.autograd.gradcheck(function, (logits, *weights))
    assert torch.autograd.gradgradcheck(function, (logits, *weights))
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), logits)


def test_an_update_of_the_logits_can_be_differentiated_by_the_weights():
    loss = LearnedLoss(random_network(("margin", "target")))
    logits, target = example(2, (3, 4, 5))

    def after_a_step(scale):
        weights = {name: weight * scale for name, weight in loss.weights.items()}
        value = torch.func.functional_call(loss, weights, (logits, target))
        (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
        return create("dice")(logits - 30 * gradient, target)

    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(after_a_step(scale), scale)
    step = 1e-5
    difference = (after_a_step(scale.detach() + step) - after_a_step(scale.detach() - step)) / (2 * step)
    torch.testing.assert_close(found, difference.detach(), rtol=1e-5, atol=0)


def test_works_under_torch_func():
    loss = LearnedLoss(random_network())
    logits, target = example(3, (3, 4, 5))
    value, gradient = value_and_gradient(loss, logits, target)
    assert_same(torch.func.grad_and_value(lambda x: loss(x, target))(logits.detach()), (gradient, value))


def test_a_distance_map_may_want_a_gradient():
    logits, target = example(3, (2, 3, 4))
    distance_map = torch.linspace(-19, 19, logits.numel(), dtype=torch.float64).reshape(logits.shape).requires_grad_()
    (gradient,) = torch.autograd.grad(LearnedLoss(random_network())(logits, target, distance_map), distance_map)
    assert gradient.abs().sum() > 0


# A loss like any other

few_examples = settings(max_examples=10)
seeds = st.integers(0, 2**31)
POINTWISE = ("margin", "probability", "target")


@few_examples
@given(seed=seeds, order=st.permutations([1, 2]), axis=st.sampled_from([2, 3, 4]))
def test_order_of_foreground_classes_and_mirrors_do_not_matter(seed, order, axis):
    loss = LearnedLoss(random_network(seed=seed % 100), spacing_mm=(4.0, 1.0, 2.0))
    logits, target = example(3, (3, 4, 5), seed=seed)
    hot = one_hot(target, 3).double()
    value, gradient = value_and_gradient(loss, logits, hot)
    assert_same(value_and_gradient(loss, logits, target), (value, gradient))
    order = [0, *order]
    assert_same(value_and_gradient(loss, logits[:, order], hot[:, order]), (value, gradient[:, order]))
    assert_same(value_and_gradient(loss, logits.flip(axis), hot.flip(axis)), (value, gradient.flip(axis)))
    turned = LearnedLoss(random_network(seed=seed % 100), spacing_mm=(2.0, 1.0, 4.0))
    across = value_and_gradient(turned, logits.transpose(2, 4), hot.transpose(2, 4))
    assert_same(across, (value, gradient.transpose(2, 4)))


@few_examples
@given(seed=seeds)
def test_a_batch_costs_the_mean_of_its_images(seed):
    loss = LearnedLoss(random_network(POINTWISE))
    logits, target = example(3, (3, 4, 5), seed=seed)
    alone = [loss(logits[b : b + 1], target[b : b + 1]) for b in range(2)]
    torch.testing.assert_close(loss(logits, target), (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_finite_whatever_the_logits_and_if_classes_are_absent(activation, label, scale):
    loss = LearnedLoss(random_network(activation=activation))
    logits, target = example(3, (3, 4, 5), dtype=torch.float32)
    for found in value_and_gradient(loss, scale * logits.sign(), torch.full_like(target, label)):
        assert bool(found.isfinite().all())


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_single_voxel(channels):
    logits, target = example(channels, (1, 1, 1), batch=1)
    assert all(
        bool(found.isfinite().all()) for found in value_and_gradient(LearnedLoss(random_network()), logits, target)
    )


@pytest.mark.parametrize("form", ["channels last", "strided", "expanded"])
def test_the_layout_in_memory_does_not_matter(form):
    loss = LearnedLoss(random_network())
    logits, target = example(3, (3, 4, 5))
    logits = logits.detach()
    if form == "expanded":
        logits, target = logits[:, :, :1].expand(-1, -1, 3, -1, -1), target[:, :, :1].expand(-1, -1, 3, -1, -1)
    expected = value_and_gradient(loss, logits.contiguous(), target.contiguous())
    if form == "channels last":
        logits = logits.to(memory_format=torch.channels_last_3d)
    elif form == "strided":
        logits, target = logits.repeat_interleave(2, -1)[..., ::2], target.repeat_interleave(2, -1)[..., ::2]
    assert_same(value_and_gradient(loss, logits, target), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_computes_in_float32_even_under_autocast(dtype):
    loss = LearnedLoss(random_network())
    logits, target = example(3, (3, 4, 5), dtype=torch.float32)
    logits = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(loss, logits, target)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert value == loss(logits.float(), target)


def test_is_an_ordinary_module_without_parameters():
    loss = LearnedLoss(random_network())
    logits, target = example(3, (3, 4, 5))
    value = loss(logits, target)
    assert not [*loss.parameters()]
    assert [*loss.state_dict()] == ["layer_1", "layer_2", "layer_3"]
    other = LearnedLoss(random_network(seed=1))
    other.load_state_dict(loss.state_dict())
    for clone in (other, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss).half()):
        assert clone(logits, target) == value
    with torch.no_grad():
        torch.testing.assert_close(loss(logits, target), value)
    assert str(random_network()) in repr(loss)


def test_the_spacing_is_that_of_the_map_and_matters():
    logits, target = example(3, (4, 5, 6))
    spacing_mm = (4.0, 1.0, 2.0)
    measured = LearnedLoss(random_network(), spacing_mm=spacing_mm)(logits, target)
    given_map = signed_distance_map(one_hot(target, 3).double(), spacing_mm)
    assert measured == LearnedLoss(random_network())(logits, target, given_map)
    assert measured != LearnedLoss(random_network())(logits, target)
    assert not LearnedLoss(CROSS_ENTROPY).uses_distance_map


# As plain data


def test_a_document_is_read_as_it_was_written():
    net = random_network(activation="tanh")
    again = LossNetwork.from_json(net.to_json())
    assert again == net
    assert again.hash == net.hash != random_network(activation="elu").hash
    assert (net.sizes, net.weight_count) == ((5, 4, 3, 1), 35)
    assert str(net).endswith("5-4-3-1 tanh without biases")
    logits, target = example(2, (3, 4, 5))
    assert from_spec({"learned": net.to_json()})(logits, target) == LearnedLoss(net)(logits, target)


def test_the_largest_network():
    large = random_network(hidden=(MAX_UNITS,) * (MAX_LAYERS - 1))
    assert LossNetwork.from_json(large.to_json()) == large


LAYERS = [[[1.0, -1.0], [0.5, 2.0]], [[1.0, 1.0]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": "margin"}, "inputs of a loss network are 'margin', expected a list of names"),
        ({"inputs": ["margin", 1]}, "expected a list of names"),
        ({"inputs": []}, "expected target and margin or probability"),
        ({"inputs": ["margin", "distance"]}, "expected target and margin or probability"),
        ({"inputs": ["target", "distance"]}, "expected target and margin or probability"),
        ({"inputs": ["margin", "targets"]}, "expected some of margin, probability, target, distance, frequency"),
        ({"inputs": ["margin", "target", "target"]}, "expected some of .*, once"),
        ({"inputs": ["margin", "target", "frequency"]}, "layer 1 .* rows of 3"),
        ({"activation": "sigmoid"}, "activation is 'sigmoid', expected one of elu, relu, softplus, tanh"),
        ({"activation": ["elu"]}, r"activation is \['elu'\], expected"),
        ({"activation": None}, "activation is None"),
        ({"layers": None}, "expected a list of matrices of numbers"),
        ({"layers": 7}, "expected a list of matrices of numbers"),
        ({"layers": []}, "1 to 5 layers, not 0"),
        ({"layers": [[1.0, 2.0]]}, "expected a list of matrices of numbers"),
        ({"layers": "layers"}, "expected a list of matrices of numbers"),
        ({"layers": {"": 1}}, "expected a list of matrices of numbers|layer 1"),
        ({"layers": [[]]}, "layer 1 of a loss network: expected 1 to 64 rows of 2"),
        ({"layers": [[[1.0]]]}, "rows of 2"),
        ({"layers": [[[1.0, 2.0], [3.0]], [[1.0, 1.0]]]}, "layer 1 .* rows of 2"),
        ({"layers": [[[1.0, 2.0]], [[1.0, 1.0]]]}, "layer 2 .* rows of 1"),
        ({"layers": [[[1.0, 2.0], [3.0, 4.0]]]}, "the last layer of a loss network has 2 rows, expected 1"),
        ({"layers": [[[1.0, 2.0]] * (MAX_UNITS + 1), [[1.0] * (MAX_UNITS + 1)]]}, "1 to 64 rows"),
        ({"layers": [*[[[1.0, 2.0], [1.0, 2.0]]] * MAX_LAYERS, [[1.0, 1.0]]]}, "1 to 5 layers, not 6"),
        ({"layers": [[[1.0, math.nan]]]}, "layer 1 of a loss network has a weight that is not finite"),
        ({"layers": [[[1.0, math.inf]]]}, "not finite"),
        ({"layers": [[[1.0, 10**400]]]}, "not finite"),
        ({"layers": [[[1.0, "2"]]]}, "of numbers"),
        ({"layers": [[[1.0, True]]]}, "of numbers"),
        ({"layers": [[[1.0, None]]]}, "of numbers"),
        ({"layers": [[[1.0, [2.0]]]]}, "of numbers"),
        ({"biases": []}, "not a loss network: expected inputs, activation and layers"),
    ],
)
def test_a_malformed_document_is_refused(change, message):
    document = {"inputs": ["margin", "target"], "activation": "elu", "layers": LAYERS}
    assert from_spec({"learned": document})
    with pytest.raises(LossevoError, match=message) as caught:
        LossNetwork.from_json({**document, **change})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("document", [None, [], "network", 7, {}, {"inputs": ["margin", "target"]}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(LossevoError, match="not a loss network: expected inputs, activation and layers"):
        from_spec({"learned": document})


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_log_odds_are_exact_where_probabilities_are_not(classes, scale):
    generator = torch.Generator().manual_seed(classes)
    x = (scale * torch.randn(2, classes, 3, 4, dtype=torch.float64, generator=generator)).requires_grad_()
    columns = [
        x[:, c] - torch.stack([x[:, k] for k in range(classes) if k != c]).logsumexp(dim=0) for c in range(classes)
    ]
    expected, weights = torch.stack(columns, dim=1), torch.randn(2, classes, 3, 4, generator=generator)
    found = neural.log_odds(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((weights * each).sum(), x)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_background_is_trained_though_it_is_no_class_of_the_loss(classes):
    """By the margin to the largest other class it would not be, of three classes and more."""
    loss = LearnedLoss(cross_entropy_network(("margin", "target"), (16, 16), "elu", torch.Generator().manual_seed(0)))
    logits = torch.randn(1, classes, 6, 7, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss(logits, torch.zeros(1, 1, 6, 7, 8, dtype=torch.int64)).backward()
        optimiser.step()
    assert bool((logits.argmax(dim=1) == 0).all())


def test_it_keeps_its_gradient_and_nothing_else():
    logits, target = example(2, (6, 7, 8), dtype=torch.float32)
    loss = LearnedLoss(random_network(("margin", "target")))
    kept = saved_bytes(lambda: loss(logits, target), given=(logits, target))
    assert kept == logits.untyped_storage().nbytes()
