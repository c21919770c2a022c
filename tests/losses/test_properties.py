"""What holds for every loss of the catalogue, whatever it computes; exceptions are listed with their reason."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lossevo import losses
from lossevo.losses import SegmentationLoss, describe, names, parameters, signed_distance_map
from lossevo.losses.base import one_hot
from tests.losses.every_loss import assert_same, create, every_loss, example, value_and_gradient

ONLY_THICK_ERRORS = {"hausdorff_erosion"}
"""Losses that errors thinner than the first erosion's cross cost nothing: one voxel, or a target of noise."""

few_examples = settings(max_examples=4)
seeds = st.integers(0, 2**32 - 1)
by_name = pytest.mark.parametrize("name", names())
SPACING_MM = (4.0, 1.0, 2.0)


REGION = [name for name in names() if describe(name).family == "region"]


def with_spacing(name, chosen=None, spacing_mm=SPACING_MM):
    """The loss, with an anisotropic voxel spacing if it takes one."""
    spacing = {"spacing_mm": spacing_mm} if "spacing_mm" in parameters(name) else {}
    return create(name, **{**(chosen or {}), **spacing})


@st.composite
def extreme_cases(draw):
    """Logits of up to ±50 and any labels: empty, full, absent classes and single voxels all occur."""
    batch, classes = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    spatial = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4))
    values = st.one_of(st.sampled_from([-50.0, 50.0, 0.0, -1.5, 13.8]), st.floats(-50, 50, width=32))
    logits = draw(hnp.arrays(np.float32, (batch, classes, *spatial), elements=values))
    few = st.sampled_from(draw(st.lists(st.integers(0, max(1, classes - 1)), min_size=1, max_size=2)))
    target = draw(hnp.arrays(np.uint8, (batch, 1, *spatial), elements=few))
    return torch.from_numpy(logits), torch.from_numpy(target)


@every_loss
@settings(max_examples=30)
@given(case=extreme_cases())
def test_value_and_gradient_are_finite(name, parameters, case):
    logits, target = case
    loss = with_spacing(name, parameters, SPACING_MM[: logits.ndim - 2])
    value, gradient = value_and_gradient(loss, logits, target)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [50, -50], ids=["right", "wrong"])
def test_certainty_is_finite(name, parameters, scale, dtype):
    # Regions large enough that `smooth` vanishes beside their sums in float32, and ratios are exactly 1.
    target = example(3, (12, 12, 12))[1]
    logits = scale * (2 * one_hot(target, 3).to(dtype) - 1)
    value, gradient = value_and_gradient(create(name, **parameters), logits, target)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
def test_one_voxel_objects_are_finite_and_seen(name, parameters):
    logits, _ = example(3, (4, 5, 6), dtype=torch.float32)
    target = torch.zeros(2, 1, 4, 5, 6, dtype=torch.long)
    target[0, 0, 0, 0, 0], target[1, 0, 2, 2, 2] = 1, 2
    value, gradient = value_and_gradient(with_spacing(name, parameters), logits, target)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert name in ONLY_THICK_ERRORS or (gradient[0, 1].any() and gradient[1, 2].any())


@pytest.mark.parametrize("name", REGION)
@pytest.mark.parametrize("batch", [False, True])
def test_without_foreground_a_region_loss_that_skips_absent_classes_is_nothing(name, batch):
    logits, _ = example(3, (3, 4, 5))
    loss = create(name, absent="skip", batch=batch, include_background=False)
    value, gradient = value_and_gradient(loss, logits, torch.zeros(2, 1, 3, 4, 5))
    assert value == 0
    assert not gradient.any()


@every_loss
@few_examples
@given(seed=seeds)
def test_mirrors_do_not_matter(name, parameters, seed):
    loss = with_spacing(name, parameters)
    logits, target = example(3, (3, 4, 5), seed=seed)
    value, gradient = value_and_gradient(loss, logits, target)
    for axis in (2, 3, 4):
        mirrored = value_and_gradient(loss, logits.flip(axis), target.flip(axis))
        assert_same(mirrored, (value, gradient.flip(axis)))


@every_loss
@few_examples
@given(seed=seeds)
def test_axes_may_change_places_with_their_spacings(name, parameters, seed):
    logits, target = example(3, (3, 4, 5), seed=seed)
    value, gradient = value_and_gradient(with_spacing(name, parameters), logits, target)
    turned = with_spacing(name, parameters, SPACING_MM[::-1])
    assert_same(
        value_and_gradient(turned, logits.transpose(2, 4), target.transpose(2, 4)), (value, gradient.transpose(2, 4))
    )


@every_loss
@few_examples
@given(seed=seeds, order=st.permutations([1, 2, 3]))
def test_the_order_of_foreground_classes_does_not_matter(name, parameters, seed, order):
    loss = create(name, **parameters)
    logits, target = example(4, (3, 4, 5), seed=seed)
    hot, order = one_hot(target, 4), [0, *order]
    value, gradient = value_and_gradient(loss, logits, hot)
    assert_same(value_and_gradient(loss, logits[:, order], hot[:, order]), (value, gradient[:, order]))


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("cross_entropy", "weight"), ("focal", "alpha"), ("dice_ce", "weight"), ("dice_focal", "alpha")],
)
def test_weights_per_class_go_with_their_class(name, parameter):
    logits, target = example(4, (3, 4, 5))
    weights, order = [0.5, 1.0, 2.0, 4.0], [0, 3, 1, 2]
    moved = create(name, **{parameter: [weights[c] for c in order]})
    hot = one_hot(target, 4)
    torch.testing.assert_close(
        moved(logits[:, order], hot[:, order]), create(name, **{parameter: weights})(logits, target)
    )


UNSURE_IS_BETTER = {
    "cross_entropy-label_smoothing": "asks for p = 1 - ε + ε/C",
    "baikal": "asks for p = 1/√C",
    "baikal_cma": "asks for p = 0.77 for two classes",
}
"""Losses that a perfect prediction does not minimise, and what they ask for instead."""


def perfect(target, classes):
    return 30 * (2 * one_hot(target, classes).double() - 1)


@every_loss
@settings(max_examples=8)
@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]), lacking=st.sampled_from([0, 1, 2, 3]))
def test_nothing_is_better_than_the_perfect_prediction(name, parameters, seed, scale, lacking):
    loss = create(name, **parameters)
    noise, target = example(3, (4, 5, 6), seed=seed)
    target = torch.where(target == lacking, (lacking + 1) % 3, target)
    best = perfect(target, 3)
    cost = loss(best, target).item()
    others = (scale * noise, best + scale * noise, torch.where(noise > 1.5, -best, best))
    lowest = min(loss(other, target).item() for other in others)
    if "-".join([name, *parameters]) not in UNSURE_IS_BETTER:
        assert cost <= lowest + 1e-6 * (1 + abs(lowest))


@pytest.mark.parametrize("case", UNSURE_IS_BETTER)
def test_where_theory_says_so_being_unsure_is_better(case):
    name, _, parameter = case.partition("-")
    loss = create(name, **({parameter: 0.1} if parameter else {}))
    best = perfect(target := example(2, (4, 5, 6))[1], 2)
    assert loss(0.02 * best, target) < loss(best, target)


@every_loss
def test_descent_on_the_logits_makes_the_right_class_win(name, parameters):
    loss = create(name, **parameters)
    logits, target = example(3, (6, 6))
    logits = logits.detach().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(120):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    assert name in ONLY_THICK_ERRORS or torch.equal(logits.argmax(dim=1, keepdim=True), target)


OF_THE_WHOLE_BATCH = {
    "log_hausdorff_dt": "the logarithm is taken of the mean",
    "lovasz": "the mean is over the classes that are there",
    "exp_log": "classes weigh by their frequency in the batch",
}
"""Losses whose value for a batch is not the mean over its images, and why."""


@pytest.mark.parametrize("name", [name for name in names() if name not in OF_THE_WHOLE_BATCH])
def test_a_batch_costs_the_mean_of_its_images(name):
    loss = create(name)
    logits, target = example(3, (3, 4, 5))
    target[0].clamp_(max=1)
    value, gradient = value_and_gradient(loss, logits, target)
    alone = [value_and_gradient(loss, logits[b : b + 1], target[b : b + 1]) for b in range(2)]
    assert_same((value, 2 * gradient), ((alone[0][0] + alone[1][0]) / 2, torch.cat([alone[0][1], alone[1][1]])))


@by_name
@pytest.mark.parametrize("form", ["channels last", "strided", "expanded"])
def test_the_layout_in_memory_does_not_matter(name, form):
    loss = create(name)
    logits, target = example(3, (3, 4, 5))
    logits = logits.detach()
    if form == "expanded":
        logits, target = logits[:, :, :1].expand(-1, -1, 3, -1, -1), target[:, :, :1].expand(-1, -1, 3, -1, -1)
        expected = value_and_gradient(loss, logits.contiguous(), target.contiguous())
    else:
        expected = value_and_gradient(loss, logits, target)
    if form == "channels last":
        logits = logits.to(memory_format=torch.channels_last_3d)
    elif form == "strided":
        logits, target = logits.repeat_interleave(2, -1)[..., ::2], target.repeat_interleave(2, -1)[..., ::2]
    assert form == "channels last" or not logits.is_contiguous()
    assert_same(value_and_gradient(loss, logits, target), expected)
    assert_same(value_and_gradient(loss, logits, one_hot(target, 3)), expected)


@every_loss
def test_second_derivatives_are_those_of_the_gradient(name, parameters):
    loss = with_spacing(name, parameters)
    logits, target = example(3, (3, 4, 5))
    direction = example(3, (3, 4, 5), seed=1)[0].detach()
    (gradient,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
    if gradient.requires_grad:
        (curvature,) = torch.autograd.grad((gradient * direction).sum(), logits)
    else:
        curvature = torch.zeros_like(logits)
    step = 1e-6
    ahead, behind = (value_and_gradient(loss, logits + s * direction, target)[1] for s in (step, -step))
    expected = (ahead - behind) / (2 * step)
    torch.testing.assert_close(curvature, expected, rtol=1e-4, atol=1e-6 * gradient.abs().max().item())


@by_name
def test_works_under_torch_func(name):
    loss = create(name).eval()  # a schedule that counts what it sees must not do so here
    logits, target = example(3, (3, 4, 5))
    value, gradient = value_and_gradient(loss, logits, target)
    function = torch.func.grad_and_value(lambda x: torch.func.functional_call(loss, {}, (x, target)))
    assert_same(function(logits.detach()), (gradient, value))


@by_name
def test_every_check_of_arguments_is_the_bases(name):
    assert type(create(name)).forward is SegmentationLoss.forward
    assert type(create(name)).prepare is SegmentationLoss.prepare


@by_name
def test_parameters_are_keywords(name):
    kinds = {p.kind for p in inspect.signature(type(create(name))).parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


@every_loss
def test_is_an_ordinary_module(name, parameters):
    loss = losses.create(name, **parameters)
    logits, target = example(3, (4, 5, 6))
    for _ in range(3):
        loss(logits, target)
        loss.step()
    restored = losses.create(name, **parameters)
    restored.load_state_dict(loss.state_dict())
    assert loss(logits, target) == restored(logits, target)
    value = loss.eval()(logits, target)
    restored.eval()
    for clone in (restored, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss).double().eval()):
        torch.testing.assert_close(clone(logits, target), value)
    assert not list(loss.parameters())


@by_name
def test_a_loss_without_schedule_stays_the_same(name):
    loss = create(name)
    logits, target = example(3, (4, 5, 6))
    before = loss(logits, target)
    for _ in range(120):
        loss.step()
    after = loss(logits, target)
    assert after.isfinite()
    if not loss.state_dict():
        assert after == before


MEASURING = [name for name in names() if "spacing_mm" in parameters(name) and describe(name).family != "adaptive"]
"""Losses that measure; of adaptive ones, parts may."""


@pytest.mark.parametrize("name", MEASURING)
def test_the_spacing_is_that_of_the_map_and_matters(name):
    loss = create(name, spacing_mm=SPACING_MM)
    logits, target = example(3, (4, 5, 6))
    given_map = signed_distance_map(one_hot(target, 3), SPACING_MM)
    found = value_and_gradient(loss, logits, target)
    assert_same(value_and_gradient(create(name, spacing_mm=SPACING_MM), logits, target, given_map), found)
    assert (create(name)(logits, target) - found[0]).abs() > 1e-5
