"""What a meta-training depends on: knobs of its own, and the study."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lossevo.errors import LossevoError
from lossevo.experiment import Study
from lossevo.losses import expressible_names, names
from lossevo.losses.neural import ACTIVATIONS, INPUTS, MAX_LAYERS, MAX_UNITS, check_inputs


class MetaSettings(BaseModel):
    """Knobs of meta-learning a loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    inputs: tuple[str, ...] = Field(("margin", "target"), description="what the loss network is given at each voxel")
    shaping: tuple[str, ...] = Field(
        (), description="inputs that it is given in meta-training only, in every other task: distance, frequency"
    )
    hidden: tuple[int, ...] = Field((16, 16), min_length=1, description="units of the hidden layers")
    activation: str = "elu"
    start: Literal["random", "cross_entropy"] = Field("cross_entropy", description="what the loss network is at first")
    optimiser: Literal["adam", "sgd"] = Field("adam", description="of the inner steps")
    inner_steps: int = Field(5, ge=1, description="steps of the U-Net that an outer step looks through")
    fixed_length: bool = Field(True, description="no credit for making the loss's gradient shorter or longer")
    cool_down: bool = Field(True, description="take the outer loss as if the training ended now, its rates fallen to 0")
    outer_loss: str = Field("dice_ce", description="task loss, on subjects that the inner steps have not seen")
    outer_batches: int = Field(4, ge=1, description="batches that the outer loss is the mean over: cheap, less noise")
    outer_steps: int = Field(200, ge=1, description="steps of the loss network")
    tasks: int = Field(4, ge=1, description="trainings of U-Nets that go on side by side, all in every outer step")
    learning_rate: float = Field(5e-3, gt=0, description="of the loss network (Adam)")
    evaluate_every: int = Field(25, ge=1, description="outer steps between evaluations by whole trainings")
    evaluation_seeds: int = Field(3, ge=1, le=500, description="trainings of an evaluation, by held-out subjects")
    confirmation_seeds: int = Field(6, ge=2, le=500, description="with new seeds, of the winner and the baselines")
    baselines: tuple[str, ...] = Field(("dice", "cross_entropy", "dice_ce"), description="losses confirmed beside it")
    distillation_budget: int = Field(1000, ge=1, description="formulas that are tried to distil the learned loss")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            check_inputs(self.inputs)
        except LossevoError as problem:
            # The file's name is added to no other kind.
            raise ValueError(str(problem)) from None
        others = [name for name in INPUTS if name not in self.inputs]
        if not {*self.shaping} <= {*others} or len({*self.shaping}) < len(self.shaping):
            raise ValueError(f"shaping {self.shaping}: expected some of {', '.join(others)}, which inputs lacks, once")
        if self.activation == "tanh" and self.start == "cross_entropy":
            raise ValueError("tanh is odd, and without biases makes no cross-entropy: give start: random")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines {self.baselines}: each once")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if len(self.hidden) >= MAX_LAYERS or not all(1 <= units <= MAX_UNITS for units in self.hidden):
            raise ValueError(f"hidden {self.hidden}: expected up to {MAX_LAYERS - 1} layers of 1 to {MAX_UNITS} units")
        if self.outer_loss not in names():
            raise ValueError(f"outer_loss {self.outer_loss!r} is no loss of the catalogue; see 'lossevo losses'")
        for name in self.baselines:
            if name not in expressible_names():
                raise ValueError(f"baseline {name!r}: expected some of {', '.join(expressible_names())}")
        return self


class MetaConfig(Study):
    """Everything that the course of a meta-training depends on."""

    format: Literal["lossevo.metalearning/3"] = "lossevo.metalearning/3"
    settings: MetaSettings = MetaSettings()
