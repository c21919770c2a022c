"""The call convention, held for every loss of the catalogue; what else holds for all is in test_properties.py."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lossevo import losses
from lossevo.errors import LossevoError
from lossevo.losses import SegmentationLoss, signed_distance_map
from lossevo.losses.base import check_target, one_hot
from tests.losses.every_loss import assert_same, create, every_loss, example, value_and_gradient


@every_loss
@pytest.mark.parametrize("spatial", [(3, 2), (2, 3, 2)], ids=["2D", "3D"])
@pytest.mark.parametrize("classes", [1, 3])
def test_gradcheck(name, parameters, classes, spatial):
    logits, target = example(classes, spatial)
    assert torch.autograd.gradcheck(lambda x: create(name, **parameters)(x, target), logits)


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float16])
def test_labels_of_any_dtype_and_one_hot_are_the_same(name, parameters, dtype):
    loss = create(name, **parameters)
    logits, target = example(3, (4, 5))
    hot = one_hot(target, 3)
    by_one_hot = value_and_gradient(loss, logits, hot.to(dtype))
    assert_same(value_and_gradient(loss, logits, target.to(dtype)), by_one_hot)
    assert_same(value_and_gradient(loss, logits, hot), by_one_hot)


@every_loss
def test_one_logit_is_two_with_a_background_logit_of_zero(name, parameters):
    loss = create(name, **parameters)
    logits, target = example(1, (3, 4, 5))
    value, gradient = value_and_gradient(loss, logits, target)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    value_of_two, gradient_of_two = value_and_gradient(loss, both, target)
    torch.testing.assert_close(value, value_of_two)
    torch.testing.assert_close(gradient, gradient_of_two[:, 1:])


@every_loss
def test_one_logit_takes_a_share_of_foreground(name, parameters):
    loss = create(name, **parameters)
    logits, _ = example(1, (4, 5))
    share = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1))
    both = torch.cat([1 - share, share], dim=1)
    assert_same(value_and_gradient(loss, logits, share), value_and_gradient(loss, logits, both))


@pytest.mark.parametrize("name", ["boundary"])
def test_a_distance_map_that_is_given_is_used(name):
    loss = create(name)
    assert loss.uses_distance_map
    logits, target = example(2, (4, 5, 6))
    given_map = signed_distance_map(one_hot(target, 2), (1, 1, 1))
    assert_same(value_and_gradient(loss, logits, target), value_and_gradient(loss, logits, target, given_map))
    assert loss(logits, target, 2 * given_map).item() == pytest.approx(2 * loss(logits, target).item())
    half = loss(logits, target, given_map.half())
    assert half.dtype == torch.float64
    assert half.item() == pytest.approx(loss(logits, target).item(), rel=1e-2)


def test_one_logit_takes_the_map_of_the_foreground_or_of_both_classes():
    loss = create("boundary", include_background=True)
    logits, target = example(1, (4, 5))
    both = signed_distance_map(one_hot(target, 2), (1, 1))
    torch.testing.assert_close(loss(logits, target, both), loss(logits, target, both[:, 1:]))


@every_loss
def test_a_loss_without_need_of_a_distance_map_ignores_one(name, parameters):
    loss = create(name, **parameters)
    if not loss.uses_distance_map:
        logits, target = example(2, (4, 5))
        torch.testing.assert_close(loss(logits, target, torch.zeros(1)), loss(logits, target))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(name, parameters, dtype):
    loss = create(name, **parameters)
    logits, target = example(2, (40, 40, 48), batch=1, dtype=dtype)
    logits = (60 * logits.detach() / logits.detach().abs().max()).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(logits.float(), target).item()
    assert logits.grad.isfinite().all()


def test_autocast_is_off_inside_a_loss():
    class Product(SegmentationLoss):
        def compute(self, inputs):
            return (inputs.logits.flatten(1) @ inputs.target.flatten(1).T).sum()

    logits, target = example(2, (4, 5), dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Product()(logits, target).dtype == torch.float32


@every_loss
def test_float32_is_as_good_as_float64_on_a_large_patch(name, parameters):
    loss = create(name, **parameters)
    logits, target = example(2, (64, 64, 48), batch=1)
    value, gradient = value_and_gradient(loss, logits, target)
    single, single_gradient = value_and_gradient(loss, logits.float(), target)
    torch.testing.assert_close(single.double(), value, rtol=1e-5, atol=1e-7)
    far = (single_gradient - gradient).abs() > 1e-3 * gradient.abs() + 1e-6 * gradient.abs().max()
    # Of two voxels that are equal in float32 and not in float64, cldice's minimum may take the other one.
    assert far.double().mean() <= (1e-4 if name == "cldice" else 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_loss
def test_is_the_same_on_a_gpu(name, parameters):
    loss = create(name, **parameters)
    logits, target = example(3, (9, 8, 7))
    value, gradient = value_and_gradient(loss, logits, target)
    found, found_gradient = value_and_gradient(loss.cuda(), logits.cuda(), target.cuda())
    assert_same((found.cpu(), found_gradient.cpu()), (value, gradient))


@pytest.mark.parametrize("name", ["dice_ce", "generalized_dice"])
def test_compiles_into_one_graph(name):
    torch.compiler.reset()
    loss = create(name)
    logits, target = example(3, (4, 5, 6))
    arguments = (logits, target, *((torch.randn_like(logits),) if loss.uses_distance_map else ()))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    assert_same(value_and_gradient(compiled, *arguments), value_and_gradient(loss, *arguments))


@every_loss
def test_exports_with_dynamic_shapes(name, parameters):
    loss = create(name, **parameters)
    distance = (torch.randn(2, 3, 4, 5, 6),) if loss.uses_distance_map else ()
    logits, target = example(3, (4, 5, 6), dtype=torch.float32)
    free = torch.export.Dim.AUTO
    shapes = ({0: free, 1: free, 2: free, 3: free, 4: free}, {0: free, 2: free, 3: free, 4: free})
    exported = torch.export.export(
        loss, (logits, target.byte(), *distance), dynamic_shapes=shapes + shapes[:1] * len(distance)
    ).module()
    logits, target = example(4, (7, 5, 3), batch=3, dtype=torch.float32)
    distance = tuple(torch.randn(3, 4, 7, 5, 3) for _ in distance)
    assert_same(
        value_and_gradient(exported, logits, target.byte(), *distance),
        value_and_gradient(loss, logits, target.byte(), *distance),
    )


LOGITS = torch.zeros(2, 3, 4, 5)
LABELS = torch.zeros(2, 1, 4, 5, dtype=torch.uint8)


def labels_with(value, dtype=torch.float32):
    target = LABELS.clone().to(dtype)
    target[0, 0, 0, 0] = value
    return target


MISTAKES = {
    "label above": (LOGITS, labels_with(3, torch.uint8), "from 0 to 3, expected labels 0 to 2 for 3 classes"),
    "label below": (LOGITS, labels_with(-1, torch.int64), "from -1 to 0, expected labels 0 to 2"),
    "ignored label": (LOGITS, labels_with(255, torch.uint8), "no 'ignore' label"),
    "missing label": (LOGITS, labels_with(float("nan")), "from nan to nan, expected labels"),
    "half a label": (LOGITS, labels_with(0.5), "not whole numbers"),
    "binary label": (LOGITS[:, :1], labels_with(2, torch.uint8), "expected labels 0 to 1 for 2 classes"),
    "share": (LOGITS[:, :1], labels_with(1.5), "expected shares between 0 and 1"),
    "missing share": (LOGITS[:, :1], labels_with(float("nan")), "expected shares between 0 and 1"),
    "one-hot of 255": (LOGITS, 255 * one_hot(LABELS, 3).to(torch.uint8), "expected shares between 0 and 1"),
    "one-hot without background": (LOGITS, torch.zeros(2, 3, 4, 5), "does not sum to 1 over its 3 classes"),
    "classes": (LOGITS, torch.zeros(2, 4, 4, 5), "expected labels (batch, 1, ...) or one-hot (batch, 3, ...)"),
    "no class axis": (LOGITS, LABELS[:, 0], "target has shape (2, 4, 5) for logits (2, 3, 4, 5)"),
    "batch": (LOGITS, LABELS[:1], "batch and spatial sizes must be equal"),
    "space": (LOGITS, LABELS[..., :4], "batch and spatial sizes must be equal"),
    "1D": (LOGITS[..., 0], LABELS[..., 0], "(batch, classes, height, width)"),
    "integer logits": (LOGITS.long(), LABELS, "expected floating point"),
    "no voxels": (LOGITS[..., :0], LABELS[..., :0], "nothing to compute"),
    "no classes": (LOGITS[:, :0], LABELS, "nothing to compute"),
    "not a tensor": (LOGITS, LABELS.numpy(), "target is ndarray"),
    "NumPy": (LOGITS.numpy(), LABELS.numpy(), "logits is ndarray, expected a floating-point tensor"),
    "no target": (LOGITS, None, "target is NoneType"),
    "no logits": (None, LABELS, "logits is NoneType"),
    "deep supervision": ([LOGITS, LOGITS], [LABELS, LABELS], "logits is list of 2, expected a floating-point tensor"),
    "how to supervise deeply": ((LOGITS,), (LABELS,), "call the loss once for each and add up: sum(w * loss(x, y)"),
    "targets of deep supervision": (LOGITS, [LABELS, LABELS], "target is list of 2"),
    "several outputs": ({"out": LOGITS}, LABELS, "as in loss(output['out'], target)"),
    "text": ("logits", LABELS, "logits is str"),
    "complex logits": (LOGITS.cfloat(), LABELS, "logits are torch.complex64"),
    "complex target": (LOGITS, LABELS.cfloat(), "target is torch.complex64"),
    "a target of a rare type": (LOGITS, LABELS.to(torch.uint16), "convert labels with target.long()"),
    "a forgotten axis": (LOGITS, LABELS[:, 0], "target.unsqueeze(1)"),
    "devices": (LOGITS, LABELS.to("meta"), "target is on meta and logits are on cpu"),
    "sparse": (LOGITS, LABELS.float().to_sparse(), "expected dense tensors"),
}


@pytest.mark.parametrize(("logits", "target", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(logits, target, message):
    with pytest.raises(LossevoError) as caught:
        create("dice")(logits, target)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@every_loss
def test_every_loss_says_what_it_takes_instead_of_lists(name, parameters):
    loss = losses.create(name, **parameters)
    for wrong in ([LOGITS, LOGITS], LOGITS.numpy(), None, LOGITS.long(), LOGITS[0]):
        with pytest.raises(LossevoError, match=r"logits (is|are) .*expected (a )?floating"):
            loss(wrong, LABELS)
    with pytest.raises(LossevoError, match="distance_map is list of 1"):
        loss(LOGITS, LABELS, [LOGITS])


@pytest.mark.parametrize(
    ("distance_map", "message"),
    [(LOGITS.cfloat(), "distance_map is torch.complex64"), (LOGITS.to("meta"), "distance_map is on meta")],
)
def test_a_distance_map_that_cannot_be_used_is_refused(distance_map, message):
    with pytest.raises(LossevoError, match=message):
        create("boundary")(LOGITS, LABELS, distance_map)


class _Readings(TorchDispatchMode):
    """Counts numbers read back one by one; those of a list, which are copied together, it does not see."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("look_for_soft", [False, True])
@pytest.mark.parametrize(
    "target",
    [LABELS, LABELS.float(), one_hot(LABELS, 3).float(), one_hot(LABELS, 3)],
    ids=["labels", "labels as floats", "one-hot", "one-hot bool"],
)
def test_a_check_of_the_target_reads_no_number_by_itself(target, look_for_soft):
    with _Readings() as readings:
        check_target(target, 3, look_for_soft=look_for_soft)
    assert readings.count == 0


def test_a_distance_map_of_another_shape_is_refused():
    with pytest.raises(LossevoError, match=r"distance_map has shape \(2, 1, 4, 5\).*\(2, 3, 4, 5\)"):
        create("boundary")(LOGITS, LABELS, torch.zeros(2, 1, 4, 5))


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.0), (1.0, float("nan")), (1.0, float("inf")), (-1.0, 1.0)])
def test_a_spacing_must_be_positive(spacing_mm):
    with pytest.raises(LossevoError, match="positive distance in mm"):
        create("boundary", spacing_mm=spacing_mm)


def test_a_spacing_needs_one_value_per_axis():
    with pytest.raises(LossevoError, match="one distance > 0 per axis"):
        create("boundary", spacing_mm=(1.0, 1.0, 4.0))(LOGITS, LABELS)


def test_a_diverged_network_gives_a_non_finite_loss_and_no_error():
    assert create("dice_ce")(LOGITS * torch.nan, LABELS).isnan()


def test_spacing_reaches_the_parts_of_a_loss_and_keeps_what_was_chosen():
    whole = create("dice_hausdorff", hausdorff="dt")
    chosen = create("dice_hausdorff", hausdorff="dt", spacing_mm=(1, 2, 3))
    for loss in (whole, chosen):
        loss.use_spacing((4.0, 1.0, 1.0))

    parts = [part for part in whole.modules() if isinstance(part, SegmentationLoss)]
    assert {part.spacing_mm for part in parts} == {(4.0, 1.0, 1.0)}
    assert chosen.hausdorff.spacing_mm == chosen.spacing_mm == (1.0, 2.0, 3.0)
    with pytest.raises(LossevoError, match="spacing_mm"):
        whole.use_spacing((0.0, 1.0, 1.0))
