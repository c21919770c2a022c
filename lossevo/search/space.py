"""Search spaces: what the search may build, where it starts, and how it spends its budget, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lossevo.configuration_file import read
from lossevo.errors import LossevoError, nearest
from lossevo.expression import CONSTANT, PRIMITIVES, TERMINALS, Expression, ExpressionError, Kind
from lossevo.expression.trees import MAX_COEFFICIENT, MAX_CONSTANT
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.tunable import expression_dimensions, expression_flags
from lossevo.search.strategy_settings import CmaEs, Section, Share, SteadyState, Strategy, TaylorGLO, TunedCatalogue

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


class Coefficients(Section):
    """Coefficient leaves: weight among the leaves, and the range of their log-uniform initial values."""

    weight: Weight = 1.0
    low: float = Field(0.1, gt=0)
    high: float = Field(10.0, gt=0, le=MAX_COEFFICIENT)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        return self


class Limits(Section):
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


class Allocation(Section):
    """Who is trained beside new candidates.

    The best ``1 / eta`` of the candidates at a length are trained for the next longer one (successive halving). At the
    longest, the ``elites`` best are trained with up to ``elite_seeds`` seeds, on at most ``elite_share`` of the steps.
    """

    eta: float = Field(3.0, gt=1)
    elites: int = Field(4, ge=0)
    elite_seeds: Seeds = 3
    elite_share: Share = 0.2


class Preselection(Section):
    """How many proposals that pass the screening compete for a training; the surrogate chooses. 1: none do."""

    proposals: int = Field(2, ge=1, le=64)


class Tuning(Section):
    """CMA-ES: how many of the best structures, on which coefficients, on which scale and with what initial step.

    ``slots`` are the coefficients that a structure has, ``per_node`` gives each of its nodes one (GLO). On a ``log``
    scale a coefficient keeps its sign.
    """

    structures: int = Field(3, ge=0)
    coefficients: Literal["slots", "per_node"] = "slots"
    scale: Literal["log", "linear"] = "log"
    sigma: float = Field(0.4, gt=0)


class Budget(Section):
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


class SearchSpace(Section):
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
    terminals: dict[str, Weight] = Field(default_factory=dict)
    constants: dict[Integer, Weight] = Field(default_factory=dict)
    coefficients: Coefficients | None = None
    primitives: dict[str, Weight] = Field(default_factory=dict)
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
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
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
