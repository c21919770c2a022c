"""The network of the training task: a 3D U-Net whose initial weights depend on the seed alone."""

from __future__ import annotations

import numpy as np
import torch
from monai.networks.nets import UNet
from torch import nn

from lossevo.training.se_norm_unet import SENormUNet
from lossevo.training.task import TaskSettings


def build_network(
    settings: TaskSettings, *, channel_count: int, class_count: int, seed: int, device: torch.device
) -> nn.Module:
    """A 3D U-Net (B, channel_count, X, Y, Z) -> logits (B, class_count, X, Y, Z) with seeded initial weights.

    Neither reads nor moves the state of torch's global generator. X, Y and Z must be multiples of
    ``settings.total_stride``.
    """
    # MONAI initialises from the global generator. Weights are drawn on the CPU on any device, so that CPU and GPU
    # start alike; torch.manual_seed would also re-seed CUDA, which fork_rng(devices=[]) does not restore.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_in_32_bits(seed))
        network = _untrained(settings, channel_count, class_count)
    if device.type == "cpu" and settings.channels_last:
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]
    return network.to(device)


def _in_32_bits(seed: int) -> int:
    """What seeds PyTorch's generator on a CPU, which looks at the lowest 32 bits alone: none may be lost.

    Seeds that differ in these bits alone stay different, so no two trainings of a run start alike.
    """
    higher, lowest = divmod(seed, 2**32)
    return lowest ^ int(np.random.SeedSequence(higher).generate_state(1)[0]) if higher else lowest


def _untrained(settings: TaskSettings, channel_count: int, class_count: int) -> nn.Module:
    if settings.network == "se_norm_unet":
        return SENormUNet(
            inputs=channel_count, outputs=class_count, channels=settings.channels, strides=settings.strides
        )
    network: nn.Module = UNet(
        spatial_dims=3,
        in_channels=channel_count,
        out_channels=class_count,
        channels=settings.channels,
        strides=settings.strides,
        num_res_units=settings.residual_units,
        norm=settings.norm,
    )
    return network
