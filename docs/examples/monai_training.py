"""A MONAI training with an exported loss, on 3D images of bright balls that it draws.

    python docs/examples/monai_training.py my_loss

``my_loss`` is the folder of an export or one of its files. Any MONAI script does it alike: the loss takes the place of
``monai.losses.DiceLoss(to_onehot_y=True, softmax=True)``. Seconds on a CPU.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from monai.data import DataLoader, Dataset, create_test_image_3d, decollate_batch
from monai.inferers import sliding_window_inference
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import AsDiscrete, Compose, EnsureChannelFirstd, RandFlipd, ScaleIntensityd, ToTensord
from monai.utils import set_determinism

import lossevo

CLASSES = 2
EPOCHS = 5


def images(number: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Noisy images (32, 40, 40) of balls, and their labels 0 and 1."""
    random_state = np.random.RandomState(seed)
    pairs = (
        create_test_image_3d(32, 40, 40, num_objs=6, rad_max=9, num_seg_classes=1, random_state=random_state)
        for _ in range(number)
    )
    return [{"image": image, "label": label} for image, label in pairs]


def main(path: str) -> None:
    """Train, and print the loss and the Dice of images that were not trained on."""
    set_determinism(0)
    keys = ("image", "label")
    prepared = [EnsureChannelFirstd(keys, channel_dim="no_channel"), ScaleIntensityd("image")]
    augmented = [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)]
    training = Dataset(images(8, seed=1), Compose([*prepared, *augmented, ToTensord(keys)]))
    validation = Dataset(images(2, seed=2), Compose([*prepared, ToTensord(keys)]))

    network = UNet(spatial_dims=3, in_channels=1, out_channels=CLASSES, channels=(8, 16, 32), strides=(2, 2))
    loss = lossevo.load(path)  # softmax and one-hot are inside: it takes logits and labels
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    metric = DiceMetric(include_background=False)
    to_one_hot, to_prediction = AsDiscrete(to_onehot=CLASSES), AsDiscrete(argmax=True, to_onehot=CLASSES)

    for epoch in range(1, EPOCHS + 1):
        network.train()
        values = []
        for batch in DataLoader(training, batch_size=2, shuffle=True):
            optimizer.zero_grad()
            value = loss(network(batch["image"]), batch["label"])  # labels (B, 1, D, H, W)
            value.backward()
            optimizer.step()
            values.append(value.item())
        network.eval()
        with torch.no_grad():
            for batch in DataLoader(validation):
                logits = sliding_window_inference(batch["image"], (32, 40, 40), 1, network)
                predictions = [to_prediction(one) for one in decollate_batch(logits)]
                metric(predictions, [to_one_hot(one) for one in decollate_batch(batch["label"])])
        print(f"epoch {epoch}: loss {np.mean(values):.4f}, validation Dice {metric.aggregate().item():.3f}")
        metric.reset()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} EXPORT")
    main(sys.argv[1])
