"""Which parameters of which losses can be learned, within what bounds, and how a free number becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lossevo.errors import LossevoError

FREE_LIMIT = 6.0
"""A free number stays within ± this, 0.25 % of the range from a bound: beyond, the sigmoid's slope is lost."""

SHARE = (0.01, 0.99)
"""Bounds of a share: nothing is ever switched off."""


@dataclass(frozen=True, slots=True)
class Learnable:
    """A parameter of a loss that can be learned.

    Attributes:
        name: of the parameter.
        low: its lower bound; of a pair, that of its share of the sum.
        high: its upper bound.
        partner: the parameter that holds the rest of a sum that stays what it is; empty if there is none.
        places: attributes of the module that hold its value, if not the one of its name.
        rest: attributes that hold the sum's rest, if not the one of the partner's name.
    """

    name: str
    low: float
    high: float
    partner: str = ""
    places: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @property
    def value_places(self) -> tuple[str, ...]:
        """Attributes that hold the value."""
        return self.places or (self.name,)

    @property
    def rest_places(self) -> tuple[str, ...]:
        """Attributes that hold what the value leaves of the sum."""
        return self.rest or ((self.partner,) if self.partner else ())


LEARNABLE: Mapping[str, tuple[Learnable, ...]] = MappingProxyType(
    {
        "focal": (Learnable("gamma", 0, 5), Learnable("alpha", *SHARE, places=("foreground_alpha",))),
        "tversky": (Learnable("w_fp", *SHARE, partner="w_fn"),),
        "asymmetric_similarity": (Learnable("beta", 0.2, 5),),
        "sensitivity_specificity": (Learnable("w_sensitivity", *SHARE),),
        "dice_ce": (Learnable("w_dice", *SHARE, partner="w_ce"),),
        "dice_focal": (
            Learnable("w_dice", *SHARE, partner="w_focal"),
            Learnable("gamma", 0, 5, places=("focal.gamma",)),
            Learnable("alpha", *SHARE, places=("focal.foreground_alpha",)),
        ),
        "dice_topk": (Learnable("w_dice", *SHARE, partner="w_topk"),),
        "focal_tversky": (Learnable("w_fp", *SHARE, partner="w_fn"), Learnable("gamma", 1 / 3, 3)),
        "unified_focal": (
            Learnable("w_tversky", *SHARE),
            Learnable(
                "delta",
                *SHARE,
                places=("delta", "tversky.w_fn", "focal.foreground_alpha"),
                rest=("tversky.w_fp",),
            ),
            Learnable("gamma", *SHARE, places=("gamma", "focal.gamma")),
        ),
        "exp_log": (Learnable("w_dice", *SHARE, partner="w_ce"), Learnable("gamma", 0.05, 2)),
        "cldice": (Learnable("alpha", *SHARE),),
    }
)
"""What can be learned of which loss. Weights of which only the ratio matters are pairs, bounded in their share."""


@dataclass(frozen=True, slots=True)
class Range:
    """A learnable parameter of a loss at hand: its bounds as numbers, and the sum that it is a share of."""

    name: str
    partner: str
    value_places: tuple[str, ...]
    rest_places: tuple[str, ...]
    low: float
    high: float
    total: float
    start: float

    @classmethod
    def at(cls, loss: nn.Module, item: Learnable) -> Range:
        """That of ``item`` in ``loss``, wherever the loss's own value lies."""
        start = float(attrgetter(item.value_places[0])(loss))
        total = start + float(attrgetter(item.rest_places[0])(loss)) if item.rest_places else 1.0
        low, high = (bound * total if item.rest_places else bound for bound in (item.low, item.high))
        return cls(item.name, item.partner, item.value_places, item.rest_places, low, high, total, start)

    @classmethod
    def of(cls, loss: nn.Module, item: Learnable) -> Range:
        """That of ``item`` in ``loss``, to be learned.

        Raises:
            LossevoError: the loss's own value is at a bound, or beyond.
        """
        found = cls.at(loss, item)
        start = found.start
        nearest_low, nearest_high = (
            found.placed(torch.tensor(x).double())[item.value_places[0]] for x in (-FREE_LIMIT, FREE_LIMIT)
        )
        if not nearest_low <= start <= nearest_high:
            least, most = (f"{float(bound):.4g}" for bound in (nearest_low, nearest_high))
            raise LossevoError(
                f"{item.name} is {start:g}, expected {least} to {most} where it is to be learned;"
                " start it there, or leave it out of 'learn'"
            )
        return found

    def free(self) -> float:
        """The free number x of the value that the loss has, the inverse of :meth:`placed`."""
        share = (self.start - self.low) / (self.high - self.low)
        return float(torch.tensor(share, dtype=torch.float64).logit())

    def placed(self, free: Tensor) -> dict[str, Tensor]:
        """What every place holds, from x, a scalar."""
        value = self.low + (self.high - self.low) * free.sigmoid()
        rest = self.total - value
        return {**dict.fromkeys(self.value_places, value), **dict.fromkeys(self.rest_places, rest)}
