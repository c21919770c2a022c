from __future__ import annotations

import pytest
import torch

from lossevo.training.se_norm_unet import SENorm, SENormUNet


def test_norm_is_the_papers_formula():
    generator = torch.Generator().manual_seed(0)
    norm = SENorm(4, reduction=2).double()
    x = torch.randn(2, 4, 3, 5, 2, dtype=torch.float64, generator=generator)
    (w1, c1, w2, c2), (v1, d1, v2, d2) = (list(part.parameters()) for part in (norm.scale, norm.shift))
    assert w1.shape == (2, 4)

    expected = torch.empty_like(x)
    for b in range(2):
        s = torch.stack([x[b, c].mean() for c in range(4)])
        gamma = torch.sigmoid(w2 @ torch.relu(w1 @ s + c1) + c2)
        beta = torch.tanh(v2 @ torch.relu(v1 @ s + d1) + d2)
        for c in range(4):
            variance = (x[b, c] - s[c]).square().mean()
            expected[b, c] = gamma[c] * (x[b, c] - s[c]) / torch.sqrt(variance + 1e-5) + beta[c]

    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(("channels", "strides"), [((4, 8), (2,)), ((4, 6, 8), (2, 2)), ((2, 3, 4, 5), (1, 2, 2))])
@pytest.mark.parametrize("size", [(8, 8, 8), (9, 11, 10)])
def test_logits_have_the_size_of_the_image_and_every_weight_learns(channels, strides, size):
    network = SENormUNet(inputs=2, outputs=3, channels=channels, strides=strides)
    image = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))

    logits = network(image)
    logits.square().mean().backward()

    assert logits.shape == (2, 3, *size)
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name


def test_an_image_twice_as_bright_gives_nearly_the_same_first_features():
    # Its statistics are divided out; only the squeezed means, through γ and β, still see the brightness.
    norm = SENorm(2)
    x = torch.randn(1, 2, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in (norm.scale, norm.shift):
            for weight in part.parameters():
                weight.zero_()
        torch.testing.assert_close(norm(2 * x + 1), norm(x), atol=1e-4, rtol=1e-4)
