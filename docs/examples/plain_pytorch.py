"""A plain PyTorch training with an exported ``loss.py``, on 2D images of bright boxes that it draws. No lossevo needed.

    python docs/examples/plain_pytorch.py my_loss

``my_loss`` is a folder that holds a ``loss.py``. In a project of your own, copy that file beside your code and write
``from loss import EvolvedLoss``. Seconds on a CPU.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

CLASSES = 3
STEPS = 60


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy images (B, 1, 32, 32) of two boxes, and their labels (B, 1, 32, 32): background, first, second box."""
    labels = torch.zeros(size, 1, 32, 32, dtype=torch.int64)
    for image in labels:
        for label in range(1, CLASSES):
            y, x = torch.randint(0, 20, (2,), generator=generator).tolist()
            image[0, y : y + 12, x : x + 12] = label
    return labels + 0.4 * torch.randn(labels.shape, generator=generator), labels


def main(folder: str) -> None:
    """Train, and print the loss and the Dice of images that were not trained on."""
    sys.path.insert(0, folder)
    from loss import EvolvedLoss

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Conv2d(16, CLASSES, 1))
    loss = EvolvedLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(1, STEPS + 1):
        images, labels = batch(8, generator)
        optimizer.zero_grad()
        value = loss(network(images), labels)  # logits: softmax is inside the loss
        value.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {value.item():.4f}, Dice {dice(network, *batch(16, generator)):.3f}")


@torch.no_grad()
def dice(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean Dice of the foreground classes."""
    found = network(images).argmax(dim=1, keepdim=True)
    scores = [
        2 * ((found == label) & (labels == label)).sum() / ((found == label).sum() + (labels == label).sum())
        for label in range(1, CLASSES)
    ]
    return float(torch.stack(scores).mean())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} EXPORT")
    main(sys.argv[1])
