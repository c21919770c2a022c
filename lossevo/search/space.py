"""Search spaces: what the search may build, where it starts, and how it spends its budget, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lossevo.configuration_file import read
from lossevo.errors import LossevoError, nearest
from lossevo.expression import CONSTANT, PRIMITIVES, TERMINALS, Expression, ExpressionError, Kind
from lossevo.expression.trees import MAX_COEFFICIENT, MAX_CONSTANT
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.tunable import expression_dimensions, expression_flags

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0)]
Integer = Annotated[int, Field(ge=-MAX_CONSTANT, le=MAX_CONSTANT)]
MAX_WINDOW = 4096
Seeds = Annotated[int, Field(ge=1, le=500)]
"""How many seeds; the engine keeps 500 to select on and 500 to confirm with."""


def _range(value: Any) -> Any:
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(bound, int) for bound in value)
        and 1 <= value[0] <= value[1]
    ):
        return tuple(value)
    raise ValueError(f"must be [smallest, largest] with 1 <= smallest <= largest, found {value!r}")


Range = Annotated[tuple[int, int], BeforeValidator(_range)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Coefficients(_Section):
    """Coefficient leaves: weight among the leaves, and the range of their log-uniform initial values."""

    weight: Weight = 1.0
    low: float = Field(0.1, gt=0)
    high: float = Field(10.0, gt=0, le=MAX_COEFFICIENT)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        return self


class Limits(_Section):
    """Sizes: of any tree, of a random tree (depth), and of a subtree that mutation grows (depth)."""

    nodes: int = Field(48, ge=3, le=512)
    depth: int = Field(14, ge=2, le=48)
    initial_depth: Range = (4, 8)
    mutation_depth: Range = (1, 4)

    @model_validator(mode="after")
    def _attainable(self) -> Self:
        for key, (_, largest) in (("initial_depth", self.initial_depth), ("mutation_depth", self.mutation_depth)):
            if largest > self.depth:
                raise ValueError(f"{key} goes up to {largest}, beyond the depth of {self.depth} that a tree may have")
        return self


class Operators(_Section):
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


class NodeMutation(_Section):
    """GLO's mutation, applied to each node bottom-up: probabilities of its four changes.

    ``shift`` moves an integer leaf by ±1, ``replace`` takes another element of the same arity, ``delete`` turns a
    subtree into a leaf, ``grow`` turns a leaf into any element, an operator with leaves below it.
    """

    shift: Share = 0.05
    replace: Share = 0.05
    delete: Share = 0.025
    grow: Share = 0.025


class _Strategy(_Section):
    """What the settings of all strategies say: whether trees are built, of the words of the space."""

    builds_trees: ClassVar[bool] = True


class Selection(_Strategy):
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


class Ageing(_Strategy):
    """Regularised evolution: mutation alone, and the oldest leave.

    The parent is the best of a tournament of ``tournament_share`` of the members; a share ``restart`` of the children
    are new random trees.
    """

    kind: Literal["ageing"]
    initial: int = Field(20, ge=2)
    population: int = Field(2500, ge=2)
    tournament_share: float = Field(0.05, gt=0, le=1)
    restart: Share = 0.1


class RandomSearch(_Strategy):
    """Random trees, each new: the control that any evolution has to beat."""

    kind: Literal["random"]


class TunedCatalogue(_Strategy):
    """The seeds that are losses of the literature, with other parameters.

    The parent is the best of ``tournament_size`` losses and variants. Its parameters move by ``spread`` of their range,
    or change from true to false. A share ``random_share`` has wholly random parameters.
    """

    builds_trees: ClassVar[bool] = False
    kind: Literal["tuned_catalogue"]
    tournament_size: int = Field(4, ge=1)
    spread: float = Field(0.15, gt=0, le=1)
    random_share: Share = 0.2


class CmaEs(_Strategy):
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


class Allocation(_Section):
    """Who is trained beside new candidates.

    The best ``1 / eta`` of the candidates at a length are trained for the next longer one (successive halving). At the
    longest, the ``elites`` best are trained with up to ``elite_seeds`` seeds, on at most ``elite_share`` of the steps.
    """

    eta: float = Field(3.0, gt=1)
    elites: int = Field(4, ge=0)
    elite_seeds: Seeds = 3
    elite_share: Share = 0.2


class Preselection(_Section):
    """How many proposals that pass the screening compete for a training; the surrogate chooses. 1: none do."""

    proposals: int = Field(2, ge=1, le=64)


class Tuning(_Section):
    """CMA-ES: how many of the best structures, on which coefficients, on which scale and with what initial step.

    ``slots`` are the coefficients that a structure has, ``per_node`` gives each of its nodes one (GLO). On a ``log``
    scale a coefficient keeps its sign.
    """

    structures: int = Field(3, ge=0)
    coefficients: Literal["slots", "per_node"] = "slots"
    scale: Literal["log", "linear"] = "log"
    sigma: float = Field(0.4, gt=0)


class Budget(_Section):
    """How the trainings of a run are shared out, and how many are in flight."""

    trainings: int = Field(240, ge=1)
    tuning_share: Share = 0.15
    confirmation_share: Share = 0.3
    confirmation_seeds: Seeds = 3
    window: int = Field(8, ge=1, le=MAX_WINDOW)

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.tuning_share + self.confirmation_share > 0.9:
            raise ValueError("tuning_share + confirmation_share must leave at least a tenth of the budget to evolution")
        return self


class SearchSpace(_Section):
    """A search space file, checked; see ``search_spaces/segmentation.yaml`` for what each key means.

    Attributes:
        terminals: like ``primitives``, ``constants``, ``coefficients`` and ``limits`` what trees are built of. A
            strategy that builds none takes none of them.
        screening: whether candidates are screened before training; without it only limits are kept and nothing is
            trained twice.
        simplify: whether a new candidate loses what does not change its gradient.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    root: Literal["scalar", "voxel"] = "scalar"
    wrap: str | None = None
    terminals: dict[str, Weight] = {}
    constants: dict[Integer, Weight] = {}
    coefficients: Coefficients | None = None
    primitives: dict[str, Weight] = {}
    limits: Limits = Limits()
    seeds: tuple[str, ...] = ()
    screening: bool = True
    simplify: bool = True
    strategy: Strategy = SteadyState()
    preselection: Preselection = Preselection()
    allocation: Allocation = Allocation()
    tuning: Tuning = Tuning()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.strategy.builds_trees:
            self._check_words()
        else:
            self._check_without_trees()
        for seed in self.seeds:
            self._check_seed(seed)
        match self.strategy:
            case TaylorGLO():
                self._check_taylorglo()
            case TunedCatalogue():
                self._check_tuned_catalogue()
        return self

    def _check_words(self) -> None:
        for key, given, known in (
            ("terminals", self.terminals, TERMINALS),
            ("primitives", self.primitives, PRIMITIVES),
        ):
            if key not in self.model_fields_set:
                raise ValueError(f"key '{key}' is missing")
            for name in given:
                if name not in known:
                    raise ValueError(f"{key}: unknown name '{name}'{nearest(name, known)}; known: {', '.join(known)}")
        if not self.terminals.keys() >= {"y"} or not self.terminals.keys() & {"p", "logp", "m"}:
            raise ValueError("terminals: a loss needs the target 'y' and the prediction, 'p', 'logp' or 'm'")
        if self.root == "voxel":
            self._check_voxel_root()
        else:
            self._check_scalar_root()

    def _check_without_trees(self) -> None:
        """Words are for trees. What CMA-ES tunes already is not tuned once more, and keeps its form."""
        kind = self.strategy.kind
        for key in ("terminals", "constants", "coefficients", "primitives", "limits"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: strategy {kind} builds no trees; leave it out")
        if self.tuning.structures:
            raise ValueError(f"tuning: strategy {kind} tunes by itself; write tuning: {{structures: 0}}")
        if self.simplify:
            raise ValueError(f"simplify: strategy {kind} tunes formulas that must keep their form; write false")
        if self.root == "scalar":
            self._check_no_wrap()

    @property
    def competing(self) -> int:
        """Proposals that compete for a training. CMA-ES has to train what it draws, so none compete there."""
        return 1 if isinstance(self.strategy, CmaEs) else self.preselection.proposals

    def _check_taylorglo(self) -> None:
        if self.root != "voxel":
            raise ValueError("root: the formula of taylorglo is that of one voxel; write voxel, and a wrap")
        self._check_wrap()
        if self.wrap is not None and not self.wrap.lstrip().startswith("-"):
            raise ValueError("wrap: taylorglo maximises its formula; begin with a minus, as in '-class_mean(mean({}))'")

    def _check_tuned_catalogue(self) -> None:
        tunable = [name for name in expressible_names() if expression_dimensions(name) or expression_flags(name)]
        if not {*self.seeds} & {*tunable}:
            raise ValueError(f"seeds: tuned_catalogue needs a loss with parameters; those are {', '.join(tunable)}")

    def _check_voxel_root(self) -> None:
        self._check_wrap()
        chosen = [PRIMITIVES[name] for name in self.primitives]
        if not chosen or not all(primitive.elementwise and not primitive.parameters for primitive in chosen):
            raise ValueError(
                "primitives: root voxel needs elementwise primitives and none else (no curves); reductions go to wrap"
            )
        if others := [name for name in self.terminals if TERMINALS[name].kind is not Kind.VOXEL]:
            raise ValueError(f"terminals: root voxel needs voxel maps, which {', '.join(others)} is not")
        if self.seeds:
            raise ValueError("seeds: a space with root voxel takes none, its trees are no whole losses")

    def _check_wrap(self) -> None:
        example = 'e.g. "class_mean(mean({}))"'
        if self.wrap is None or self.wrap.count("{}") != 1:
            raise ValueError(f"wrap: root voxel needs a formula with one {{}} for the tree, {example}")
        try:
            wrapped = Expression.parse(self.wrap.replace("{}", "y"))
        except ExpressionError as problem:
            raise ValueError(f"wrap: {problem}") from None
        leaves = [node.name for node in wrapped.root.walk() if not node.children and node.name != CONSTANT]
        if leaves != ["y"]:
            raise ValueError(f"wrap: only integers may stand beside {{}}, no terminal and no coefficient, {example}")

    def _check_no_wrap(self) -> None:
        if self.wrap is not None:
            raise ValueError("wrap: only a space with root voxel wraps its trees")

    def _check_scalar_root(self) -> None:
        self._check_no_wrap()
        chosen = [PRIMITIVES[name] for name in self.primitives]
        reductions = [primitive for primitive in chosen if primitive.source is not primitive.target]
        if len({reduction.source for reduction in reductions}) < 2:
            raise ValueError(
                "primitives: root scalar needs reductions over voxels and over classes, e.g. sum and class_mean"
            )

    def _check_seed(self, seed: str) -> None:
        """A seed enters the population, so the space must have its words; its numbers may be any."""
        found = self._seed(seed)
        if not self.strategy.builds_trees:
            return
        lacking = {node.name for node in found.root.walk() if node.name in {*TERMINALS, *PRIMITIVES}}
        lacking -= {*self.terminals, *self.primitives}
        if lacking:
            words = ", ".join(f"'{word}'" for word in sorted(lacking))
            raise ValueError(f"seeds: '{seed}' needs {words}, which this space lacks; add to it or leave the seed out")

    @staticmethod
    def _seed(text: str) -> Expression:
        if text.isidentifier():
            if text not in expressible_names():
                known = expressible_names()
                raise ValueError(
                    f"seeds: '{text}' is not a loss with an expression{nearest(text, known)}; known: {', '.join(known)}"
                )
            return expression_of(text)
        try:
            return Expression.parse(text)
        except ExpressionError as problem:
            raise ValueError(f"seeds: {problem}") from None

    def seed_expressions(self) -> dict[str, Expression]:
        """The seeds by name: a hand-crafted loss's name, or the formula itself."""
        return {seed: self._seed(seed) for seed in self.seeds}


def folders() -> list[Path]:
    """Where search spaces that travel with lossevo lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package / "search_spaces", package.parent / "search_spaces") if folder.is_dir()]


def available() -> dict[str, Path]:
    """Names of the search spaces that travel with lossevo."""
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*.yaml"))}


def load_space(name_or_path: str) -> SearchSpace:
    """Read a search space by name (``segmentation``, ``glo``) or from a YAML file.

    Raises:
        LossevoError: no such file, not YAML, or a wrong key or value: names the file, the key and the nearest right
        word.
    """
    known = available()
    path = known.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise LossevoError(
            f"no search space '{name_or_path}'{nearest(name_or_path, known)}; "
            f"give one of {', '.join(known)}, or the path of a YAML file"
        )
    return read(SearchSpace, path, expects="name, terminals, primitives, …")
