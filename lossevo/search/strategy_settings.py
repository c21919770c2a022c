"""What a search space says of its strategy: settings of each kind."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a search-space file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Operators(Section):
    """How often each operator of the steady-state strategy makes a new candidate (relative weights)."""

    crossover: float = Field(4, ge=0)
    combine: float = Field(1, ge=0)
    subtree: float = Field(3, ge=0)
    node: float = Field(2, ge=0)
    everywhere: float = Field(1, ge=0)
    insert: float = Field(1, ge=0)
    shrink: float = Field(1, ge=0)
    coefficients: float = Field(2, ge=0)
    random: float = Field(1, ge=0)

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("at least one operator needs a weight above 0")
        return self


class NodeMutation(Section):
    """GLO's mutation, applied to each node bottom-up: probabilities of its four changes.

    ``shift`` moves an integer leaf by ±1, ``replace`` takes another element of the same arity, ``delete`` turns a
    subtree into a leaf, ``grow`` turns a leaf into any element, an operator with leaves below it.
    """

    shift: Share = 0.05
    replace: Share = 0.05
    delete: Share = 0.025
    grow: Share = 0.025


class StrategySettings(Section):
    """What the settings of all strategies say: whether trees are built, of the words of the space."""

    builds_trees: ClassVar[bool] = True


class Selection(StrategySettings):
    """How parents are chosen: by tournament, or by roulette in proportion to what they are worth."""

    selection: Literal["tournament", "roulette"] = "tournament"
    tournament_size: int = Field(4, ge=2)


class SteadyState(Selection):
    """Evolution by one child at a time; the worst member leaves when the population is full.

    At most ``niche_size`` members may resemble each other, which they do when the cosine between their gradients on the
    screening's probe exceeds ``niche_similarity``. ``parsimony`` is what a node costs, as a part of the objective's
    range.
    """

    kind: Literal["steady_state"] = "steady_state"
    population: int = Field(40, ge=4)
    parsimony: float = Field(1e-4, ge=0)
    niche_similarity: float = Field(0.99, gt=0, le=1)
    niche_size: int = Field(3, ge=1)
    operators: Operators = Operators()


class Generational(Selection):
    """Evolution by whole generations, of which the ``elites`` best survive; children by crossover, then mutation."""

    kind: Literal["generational"]
    population: int = Field(80, ge=4)
    parsimony: float = Field(0.0, ge=0)
    elites: int = Field(6, ge=0)
    crossover_rate: Share = 0.8
    node_mutation: NodeMutation = NodeMutation()


class Ageing(StrategySettings):
    """Regularised evolution: mutation alone, and the oldest leave.

    The parent is the best of a tournament of ``tournament_share`` of the members; a share ``restart`` of the children
    are new random trees.
    """

    kind: Literal["ageing"]
    initial: int = Field(20, ge=2)
    population: int = Field(2500, ge=2)
    tournament_share: float = Field(0.05, gt=0, le=1)
    restart: Share = 0.1


class RandomSearch(StrategySettings):
    """Random trees, each new: the control that any evolution has to beat."""

    kind: Literal["random"]


class TunedCatalogue(StrategySettings):
    """The seeds that are losses of the literature, with other parameters.

    The parent is the best of ``tournament_size`` losses and variants. Its parameters move by ``spread`` of their range,
    or change from true to false. A share ``random_share`` has wholly random parameters.
    """

    builds_trees: ClassVar[bool] = False
    kind: Literal["tuned_catalogue"]
    tournament_size: int = Field(4, ge=1)
    spread: float = Field(0.15, gt=0, le=1)
    random_share: Share = 0.2


class CmaEs(StrategySettings):
    """CMA-ES on the parameters of one formula: its first step, vectors in a generation, and generations of a course.

    A course that has converged, or had its generations, begins anew where it began.
    """

    builds_trees: ClassVar[bool] = False
    sigma: float = Field(gt=0)
    population: int = Field(20, ge=4)
    generations: int = Field(100, ge=1)


class TaylorGLO(CmaEs):
    """The third-order Taylor polynomial of TaylorGLO; ``invariant``: without its condition nothing is trained."""

    kind: Literal["taylorglo"]
    sigma: float = Field(1.2, gt=0)
    invariant: bool = True


class AutoSegLoss(CmaEs):
    """A metric whose logical operations are monotone curves, with so many control points each."""

    kind: Literal["auto_seg_loss"]
    metric: Literal["iou", "dice"] = "iou"
    control_points: int = Field(4, ge=1, le=4)
    sigma: float = Field(0.5, gt=0)


def _with_kind(value: Any) -> Any:
    """Settings that name no kind are those of the default."""
    return {"kind": "steady_state", **value} if isinstance(value, dict) else value


Strategy = Annotated[
    Annotated[
        SteadyState | Generational | Ageing | RandomSearch | TunedCatalogue | TaylorGLO | AutoSegLoss,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_with_kind),
]
