"""A loss that is a small neural network per voxel: what meta-learning (ML3) trains, and a ``loss.json`` may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from lossevo.errors import LossevoError, shown
from lossevo.expression import DISTANCE_SCALE_MM
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.one_pass import with_own_gradient

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "relu": torch.relu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
}
MAX_UNITS, MAX_LAYERS = 64, 5

_AT_ONCE_ON_CPU, _AT_ONCE_ON_GPU = 2**18, 2**26
"""How many numbers of a layer are computed at once: what a cache holds, and what keeps a GPU busy."""


def log_odds(x: Tensor) -> Tensor:
    """Log p_c/(1 - p_c) = x_c - log Σ_{k≠c} exp x_k of logits (B, C, *spatial), exact also where p is nearly 1."""
    # Which one is the largest has no derivative, and autograd would keep a map for it.
    largest = x == x.detach().amax(dim=1, keepdim=True)
    # Of equal ones the first; by no index, which would tie an exported graph to a device.
    top = largest & (largest.cumsum(dim=1) == 1)
    # For the largest the others are summed up themselves; for the rest p is at most 1/2, and 1 - p loses nothing.
    others = x.masked_fill(top, -torch.inf).logsumexp(dim=1, keepdim=True)
    below = x.softmax(dim=1).masked_fill(top, 0.0)
    return x - torch.where(top, others, x.logsumexp(dim=1, keepdim=True) + torch.log1p(-below))


def _distance(inputs: LossInputs) -> Tensor:
    assert inputs.distance_map is not None
    return (inputs.distance_map / DISTANCE_SCALE_MM).clamp(-1, 1)


def _frequency(inputs: LossInputs) -> Tensor:
    target = inputs.target
    return target.mean(dim=[0, *range(2, target.ndim)], keepdim=True).expand_as(target)


INPUTS: Mapping[str, Callable[[LossInputs], Tensor]] = {
    "margin": lambda inputs: log_odds(inputs.logits),
    "probability": lambda inputs: inputs.probability,
    # Without biases a network takes 0 to one and the same value, whatever its weights; so no class is 0.
    "target": lambda inputs: 2 * inputs.target - 1,
    "distance": _distance,
    "frequency": _frequency,
}
"""How each input of a loss network is read: maps (B, C, *spatial), background included."""

LEGEND: Mapping[str, str] = {
    "margin": "x_c - log Σ_{k≠c} exp x_k, the log-odds of the class against all others",
    "probability": "p, predicted probability (softmax)",
    "target": "2 g - 1: 1 in the class, -1 outside",
    "distance": f"signed distance to the class's boundary, negative inside, in {DISTANCE_SCALE_MM:g} mm, from -1 to 1",
    "frequency": "the class's share of the batch's voxels",
}
"""What each input of a loss network is; x logits, g target."""


@dataclass(frozen=True, slots=True)
class LossNetwork:
    """A network without biases, u -> softplus(W_n a(… a(W_1 u))), as plain data.

    Attributes:
        inputs: names out of :data:`INPUTS`, the components of u; a prediction and the target among them.
        layers: the matrices W_1 … W_n, each as rows; the last has one row.
        activation: a, a name out of :data:`ACTIVATIONS`.

    Raises:
        LossevoError: unknown names, matrices that do not fit, numbers that are not finite, more than 64 units or five
            layers.
    """

    inputs: tuple[str, ...]
    layers: tuple[tuple[tuple[float, ...], ...], ...]
    activation: str = "elu"

    def __post_init__(self) -> None:
        check_inputs(self.inputs)
        if self.activation not in ACTIVATIONS:
            raise LossevoError(f"activation is {shown(self.activation)}, expected one of {', '.join(ACTIVATIONS)}")
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise LossevoError(f"a loss network has 1 to {MAX_LAYERS} layers, not {len(self.layers)}")
        width = len(self.inputs)
        for number, layer in enumerate(self.layers, start=1):
            if not 1 <= len(layer) <= MAX_UNITS or any(len(row) != width for row in layer):
                raise LossevoError(f"layer {number} of a loss network: expected 1 to {MAX_UNITS} rows of {width}")
            if not all(math.isfinite(weight) for row in layer for weight in row):
                raise LossevoError(f"layer {number} of a loss network has a weight that is not finite")
            width = len(layer)
        if width != 1:
            raise LossevoError(f"the last layer of a loss network has {width} rows, expected 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of inputs, of units of each hidden layer, and 1."""
        return len(self.inputs), *(len(layer) for layer in self.layers)

    @property
    def weight_count(self) -> int:
        """How many numbers it has."""
        return sum(len(layer) * len(layer[0]) for layer in self.layers)

    @property
    def hash(self) -> str:
        """sha256 of the network; equal for equal ones."""
        return sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        sizes = "-".join(map(str, self.sizes))
        return f"mean(softplus(network({', '.join(self.inputs)}))), {sizes} {self.activation} without biases"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "inputs": list(self.inputs),
            "activation": self.activation,
            "layers": [[list(row) for row in layer] for layer in self.layers],
        }

    @classmethod
    def from_json(cls, document: object) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            LossevoError: not such a document.
        """
        if not isinstance(document, Mapping) or set(document) != {"inputs", "activation", "layers"}:
            raise LossevoError(f"not a loss network: expected inputs, activation and layers, found {shown(document)}")
        inputs, layers, activation = document["inputs"], document["layers"], document["activation"]
        if not (isinstance(inputs, list) and all(isinstance(name, str) for name in inputs)):
            raise LossevoError(f"inputs of a loss network are {shown(inputs)}, expected a list of names")
        if not isinstance(activation, str):
            raise LossevoError(f"activation is {shown(activation)}, expected one of {', '.join(ACTIVATIONS)}")
        try:
            matrices = tuple(tuple(tuple(_number(weight) for weight in row) for row in layer) for layer in layers)
        except TypeError:
            raise LossevoError("layers of a loss network: expected a list of matrices of numbers, as rows") from None
        return cls(tuple(inputs), matrices, activation)


def check_inputs(inputs: Sequence[str]) -> None:
    """Raise LossevoError unless a loss network can be made of these inputs."""
    unknown = [name for name in inputs if name not in INPUTS]
    if unknown or len(set(inputs)) != len(inputs):
        raise LossevoError(f"inputs of a loss network are {shown(inputs)}, expected some of {', '.join(INPUTS)}, once")
    if "target" not in inputs or not {"margin", "probability"} & set(inputs):
        raise LossevoError(f"inputs of a loss network are {shown(inputs)}, expected target and margin or probability")


def _number(weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise TypeError
    try:
        return float(weight)
    except OverflowError:
        return math.inf


class LearnedLoss(SegmentationLoss):
    """The mean over batch, foreground classes and voxels of a network of prediction and target,

        L = 1/(B (C-1) |Ω|) Σ_b Σ_{c≥1} Σ_i softplus(W_n a(… a(W_1 u_bci))),

    with the components u named in ``network.inputs``. With the background, class 0, among the classes one function
    could not tell one class of two from the other: what a voxel of the foreground costs at the margin m would be what
    one of the background costs at -m, and no weight could lie on either.

    The weights are buffers ``layer_1`` …: an optimiser of the
    network that is trained leaves them alone. To train them, call the loss by ``torch.func.functional_call`` with
    tensors that want a gradient. Otherwise value and gradient are computed together, a few thousand voxels at a time.

    Bechtle et al., Meta learning via learned loss, ICPR 2020: the loss network without biases, softplus at its end.
    """

    def __init__(self, network: LossNetwork, *, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.network = network
        self.uses_distance_map = "distance" in network.inputs
        for number, layer in enumerate(network.layers, start=1):
            self.register_buffer(f"layer_{number}", torch.tensor(layer, dtype=torch.float64))

    @property
    def weights(self) -> dict[str, Tensor]:
        """W_1 … W_n by the names of their buffers."""
        names = [f"layer_{number}" for number in range(1, len(self.network.layers) + 1)]
        return {name: getattr(self, name) for name in names}

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        return self._value(inputs, [*self.weights.values()])

    def _value(self, inputs: LossInputs, weights: Sequence[Tensor]) -> Tensor:
        return network_value(self._components(inputs), weights, self.network.activation)

    def compute_with_gradient(self, inputs: LossInputs) -> Tensor:
        """As :meth:`compute`; of the network's many maps only those of a few voxels exist at a time."""
        # Those of now: torch.func.functional_call takes others back before a backward pass.
        distance_map, weights = inputs.distance_map, [*self.weights.values()]
        if any(weight.requires_grad for weight in weights) or (distance_map is not None and distance_map.requires_grad):
            return self._value(inputs, weights)
        logits = inputs.logits.detach().requires_grad_()
        components = self._components(LossInputs(logits, inputs.given_target, distance_map))
        value, received = _value_and_gradient(components, weights, self.network.activation)
        of_logits = [(x, y.view_as(x)) for x, y in zip(components, received, strict=True) if x.requires_grad]
        (gradient,) = torch.autograd.grad([x for x, _ in of_logits], logits, [y for _, y in of_logits])
        return with_own_gradient(inputs, value, gradient, lambda: self._value(inputs, weights))

    def _components(self, inputs: LossInputs) -> list[Tensor]:
        return [INPUTS[name](inputs)[:, 1:] for name in self.network.inputs]

    def extra_repr(self) -> str:
        """What the network takes and how large it is."""
        return str(self.network)


def network_value(components: Sequence[Tensor], weights: Sequence[Tensor], activation: str) -> Tensor:
    """The mean of softplus(W_n a(… a(W_1 u))) over all voxels; ``components`` are those of u, maps of one shape."""
    return _terms(_columns(components), weights, activation).mean()


def _columns(components: Sequence[Tensor]) -> Tensor:
    # Voxels along the columns: rows of a matrix product are contiguous.
    return torch.stack([*components]).flatten(1)


def _terms(values: Tensor, weights: Sequence[Tensor], activation: str) -> Tensor:
    """What each column of u, (components, voxels), adds to the loss: (1, voxels)."""
    for number, weight in enumerate(weights, start=1):
        values = weight.type_as(values) @ values
        if number < len(weights):
            values = ACTIVATIONS[activation](values)
    return functional.softplus(values)


def _value_and_gradient(
    components: Sequence[Tensor], weights: Sequence[Tensor], activation: str
) -> tuple[Tensor, Tensor]:
    """:func:`network_value`, and its derivative by each component, (components, voxels)."""
    columns = _columns(components).detach()
    at_once = _AT_ONCE_ON_CPU if columns.device.type == "cpu" else _AT_ONCE_ON_GPU
    sums, gradients = [], []
    for chunk in columns.split(at_once // max(map(len, weights)), dim=1):  # type: ignore[no-untyped-call]
        chunk = chunk.requires_grad_()
        total = _terms(chunk, weights, activation).sum()
        gradients += torch.autograd.grad(total, chunk)
        sums.append(total.detach())
    count = columns.shape[1]
    return torch.stack(sums).sum() / count, torch.cat(gradients, dim=1).div_(count)
