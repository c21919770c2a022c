"""An nnU-Net v2 trainer that trains with an exported loss.

    mkdir my_trainers && cp docs/examples/nnunet_trainer.py my_trainers/ && cp my_loss/loss.py my_trainers/
    nnUNet_extTrainer=$PWD/my_trainers nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerEvolvedLoss

nnU-Net finds the class by its name in the folders of ``nnUNet_extTrainer``. The class uses the ``loss.py`` beside this
file, or what ``LOSSEVO_LOSS`` names: a ``loss.py``, or the folder of an export. Neither file needs lossevo.

For another number of epochs, or a second loss, make a subclass in the same file.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

CUDA = torch.device("cuda")


class nnUNetTrainerEvolvedLoss(nnUNetTrainer):
    """nnU-Net's trainer, with the loss of ``loss_file`` in place of Dice and cross-entropy."""

    loss_file = Path(os.environ.get("LOSSEVO_LOSS", Path(__file__).parent))

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_regions:
            raise ValueError(
                "this dataset is trained with regions (labels that overlap, one sigmoid each), but an evolved loss"
                " takes labels that exclude each other: give each label one number in dataset.json, without"
                " 'regions_class_order', and plan and preprocess again"
            )
        if self.label_manager.has_ignore_label:
            raise ValueError(
                "this dataset has an 'ignore' label, which an evolved loss does not know: label those voxels, or use"
                " one of nnU-Net's own trainers"
            )
        if not self.enable_deep_supervision:
            return self._loss_at([1.0] * len(self.configuration_manager.patch_size))
        scales = self._get_deep_supervision_scales()
        weights = super()._build_loss().weight_factors
        return DeepSupervision([self._loss_at(scale) for scale in scales], weights)

    def _loss_at(self, scale: list[float]) -> nn.Module:
        """The loss of the output that has ``scale`` times as many voxels along each axis."""
        file = self.loss_file / "loss.py" if self.loss_file.is_dir() else self.loss_file
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist; copy the loss.py of an export there, or set LOSSEVO_LOSS")
        loss_class = runpy.run_path(str(file))["EvolvedLoss"]
        if not loss_class.uses_distance_map:
            return loss_class().to(self.device)
        axes = zip(self.configuration_manager.spacing[-len(scale) :], scale, strict=True)
        return loss_class(spacing_mm=[spacing / share for spacing, share in axes]).to(self.device)

    def on_train_epoch_start(self) -> None:
        """Tell a loss that changes during the training how far the training is."""
        super().on_train_epoch_start()
        steps = 100 * self.current_epoch // self.num_epochs
        for loss in self.loss.modules():
            if hasattr(loss, "progress"):
                loss.progress.fill_(steps / 100)


class nnUNetTrainerEvolvedLoss_2epochs(nnUNetTrainerEvolvedLoss):
    """Two short epochs, to see that everything works."""

    # nnU-Net asks for arguments of these names.
    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 4, 2


class DeepSupervision(nn.Module):
    """Weighted sum of the losses of the outputs, each with the target of its resolution."""

    def __init__(self, losses: list[nn.Module], weights: tuple[float, ...]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.weights = [float(weight) for weight in weights]

    def forward(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        """The sum, a scalar; outputs and targets are in the order of the losses."""
        levels = zip(self.weights, self.losses, outputs, targets, strict=True)
        return sum(weight * loss(output, target) for weight, loss, output, target in levels if weight != 0)
