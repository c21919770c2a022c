"""Variation on DEAP: strongly typed trees, drawn, crossed and mutated with an explicit generator.

An individual is a DEAP ``PrimitiveTree`` over a ``PrimitiveSetTyped`` made from the search space: for every
elementwise primitive of the language one DEAP primitive per combination of operand kinds (``mul_VR``: a VOXEL map
times a REGION value), so DEAP's type system sees the broadcasting. :func:`to_expression` and
:meth:`Variation.to_tree` lead from one to the other.

DEAP's operators draw from Python's global generator, so they run under :func:`drawing_from`, which lends them the
state of an explicit one and gives the global state back. Some are replaced: ``cxOnePoint`` picks a type from a set
whose order depends on memory addresses (DEAP issues 177, 190), ``generate`` knows no node weights, and both it and
``mutInsert`` fail where a type (Region) has no terminal.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deap import gp, tools

from lossevo.expression import COEFFICIENT, CONSTANT, PRIMITIVES, TERMINALS, Expression, Kind, Node, constant
from lossevo.search.space import SearchSpace


class Voxel:
    """DEAP type of a VOXEL value."""


class Region:
    """DEAP type of a REGION value."""


class Scalar:
    """DEAP type of a SCALAR value."""


_TYPE = {Kind.VOXEL: Voxel, Kind.REGION: Region, Kind.SCALAR: Scalar}
_KIND = {kind: letter for letter, kind in zip("SRV", Kind, strict=True)}


@contextmanager
def drawing_from(generator: random.Random) -> Iterator[None]:
    """Lend ``generator`` to code that draws from Python's global one."""
    outer = random.getstate()
    random.setstate(generator.getstate())
    try:
        yield
    finally:
        generator.setstate(random.getstate())
        random.setstate(outer)


class _Leaf(gp.Terminal):  # type: ignore[misc]
    """A leaf that carries its own value: a terminal's name, an integer, or a coefficient (float)."""

    def __init__(self, value: str | int | float, kind: Kind) -> None:
        super().__init__(value, isinstance(value, str), _TYPE[kind])
        self.name = str(value)
        self.value = value


def primitive_set(space: SearchSpace) -> gp.PrimitiveSetTyped:
    """The space as a DEAP primitive set: typed primitives and leaves."""
    root = Voxel if space.root == "voxel" else Scalar
    pset = gp.PrimitiveSetTyped(space.name, [], root)
    for name in space.primitives:
        primitive = PRIMITIVES[name]
        if primitive.source is not None and primitive.target is not None:
            pset.addPrimitive(_undefined, [_TYPE[primitive.source]], _TYPE[primitive.target], name=name)
            continue
        for operands in itertools.product(_kinds(space), repeat=primitive.arity - primitive.parameters):
            kinds = (*operands, *[Kind.SCALAR] * primitive.parameters)
            suffix = "".join(_KIND[kind] for kind in kinds)
            pset.addPrimitive(_undefined, [_TYPE[kind] for kind in kinds], _TYPE[max(kinds)], name=f"{name}_{suffix}")
    leaves = [_Leaf(name, TERMINALS[name].kind) for name in space.terminals]
    leaves += [_Leaf(value, _number_kind(space)) for value in space.constants]
    if space.coefficients:
        leaves.append(_Leaf(1.0, _number_kind(space)))
    for leaf in leaves:
        pset._add(leaf)
    return pset


def _undefined(*_: Any) -> Any:
    """DEAP wants a function for each primitive, but never calls it: lossevo generates code itself."""
    raise AssertionError("primitives are compiled by lossevo.expression.codegen")


def _word(primitive: Any) -> str:
    """The language's name of a typed primitive: ``mul`` for ``mul_VR``."""
    name: str = primitive.name
    return name if name in PRIMITIVES else name.rpartition("_")[0]


def _kinds(space: SearchSpace) -> tuple[Kind, ...]:
    return (Kind.VOXEL,) if space.root == "voxel" else tuple(Kind)


def _number_kind(space: SearchSpace) -> Kind:
    """Voxel-wise trees (GLO) know one type only, so their numbers are of it too."""
    return Kind.VOXEL if space.root == "voxel" else Kind.SCALAR


def to_node(tree: Sequence[Any]) -> tuple[Node, list[float]]:
    """The language's tree of a DEAP tree, coefficient slots in prefix order, and their values."""
    values: list[float] = []
    position = iter(tree)

    def build() -> Node:
        item = next(position)
        if isinstance(item, _Leaf):
            if isinstance(item.value, str):
                return Node(item.value)
            if isinstance(item.value, int):
                return constant(item.value)
            values.append(item.value)
            return Node(COEFFICIENT, value=len(values) - 1)
        return Node(_word(item), tuple(build() for _ in range(item.arity)))

    return build(), values


class Variation:
    """Makes new trees of one search space from one explicit generator."""

    def __init__(self, space: SearchSpace, generator: random.Random) -> None:
        self.space = space
        self.generator = generator
        self.pset = primitive_set(space)
        self.root_type = Voxel if space.root == "voxel" else Scalar
        self._wrap = space.wrap
        self._number_kind = _number_kind(space)
        self._min_depth = _minimum_depths(self.pset)

    # Trees and expressions

    def to_expression(self, tree: Sequence[Any]) -> Expression:
        """The loss that a tree stands for, wrapped as the space says.

        Raises:
            ExpressionError: the tree exceeds the language's limits, or is one number where a voxel map is needed.
        """
        root, values = to_node(tree)
        if self._wrap is None:
            return Expression(root, tuple(values))
        return Expression.of(_wrapped(self._wrap, root), values)

    def to_tree(self, expression: Expression) -> gp.PrimitiveTree | None:
        """The DEAP tree of an expression, or None where the space lacks one of its words."""
        items: list[Any] = []

        def visit(node: Node) -> bool:
            if node.name == CONSTANT:
                items.append(_Leaf(node.value, Kind.SCALAR))
            elif node.name == COEFFICIENT:
                items.append(_Leaf(float(expression.coefficients[node.value]), Kind.SCALAR))
            elif node.name in TERMINALS:
                if node.name not in self.space.terminals:
                    return False
                items.append(_Leaf(node.name, node.kind))
            else:
                primitive = PRIMITIVES[node.name]
                suffix = "_" + "".join(_KIND[child.kind] for child in node.children) if primitive.elementwise else ""
                found = self.pset.mapping.get(node.name + suffix)
                if found is None:
                    return False
                items.append(found)
            return all(visit(child) for child in node.children)

        return gp.PrimitiveTree(items) if self._wrap is None and visit(expression.root) else None

    # Drawing

    def leaf(self, kind_type: type) -> Any:
        """A weighted random leaf of a type; None if the type has none."""
        options: list[tuple[str | int, float]] = [
            (name, weight) for name, weight in self.space.terminals.items() if _TYPE[TERMINALS[name].kind] is kind_type
        ]
        if kind_type is _TYPE[self._number_kind]:
            options += self.space.constants.items()
            if self.space.coefficients:
                options.append((COEFFICIENT, self.space.coefficients.weight))
        if not options:
            return None
        (value,) = self.generator.choices([value for value, _ in options], [weight for _, weight in options])
        if value == COEFFICIENT:
            return _Leaf(self.coefficient(), self._number_kind)
        return _Leaf(value, TERMINALS[value].kind if isinstance(value, str) else self._number_kind)

    def coefficient(self) -> float:
        """A log-uniform random coefficient, rounded to four digits."""
        settings = self.space.coefficients
        assert settings is not None
        value = math.exp(self.generator.uniform(math.log(settings.low), math.log(settings.high)))
        return float(f"{value:.4g}")

    def grow(self, kind_type: type, min_depth: int, max_depth: int) -> list[Any]:
        """A random tree of a type, prefix order; as deep as asked where the types allow it ("grow" of Koza's
        half-and-half).
        """
        options = [primitive for primitive in self.pset.primitives[kind_type] if self._reach(primitive) <= max_depth]
        needs_primitive = min_depth > 1 or self._min_depth[kind_type] > 1
        if kind_type is Region:
            # Regions are what reductions make; their one terminal must not end every tree of them.
            ends = bool(self.pset.terminals[Region]) and min_depth <= 1 and self.generator.random() < 0.1
        else:
            ends = not options or not (needs_primitive or self.generator.random() < 0.5)
        if ends:
            leaf = self.leaf(kind_type)
            if leaf is not None:
                return [leaf]
        if not options:
            options = [
                min(self.pset.primitives[kind_type], key=lambda primitive: (self._reach(primitive), primitive.name))
            ]
        primitive = self._drawn(options)
        tree = [primitive]
        for argument in primitive.args:
            tree += self.grow(argument, min_depth - 1, max_depth - 1)
        return tree

    def smallest(self, kind_type: type) -> list[Any]:
        """A random leaf of a type; a tree that is as small as possible where the space has no leaf of the type."""
        return self.grow(kind_type, 1, 1)

    def _reach(self, primitive: Any) -> int:
        return 1 + max(self._min_depth[argument] for argument in primitive.args)

    def _drawn(self, options: Sequence[Any]) -> Any:
        """One of some typed primitives, by the space's weights; each word's weight is shared out among its variants."""
        # Operands of one kind are four times as likely as a broadcast.
        shares = [1.0 if len(set(primitive.args)) == 1 else 0.25 for primitive in options]
        total: dict[str, float] = defaultdict(float)
        for primitive, share in zip(options, shares, strict=True):
            total[_word(primitive)] += share
        weights = [
            self.space.primitives[_word(primitive)] * share / total[_word(primitive)]
            for primitive, share in zip(options, shares, strict=True)
        ]
        return self.generator.choices(options, weights)[0]

    def random_tree(self) -> gp.PrimitiveTree:
        """A new random tree."""
        smallest, largest = self.space.limits.initial_depth
        depth = self.generator.randint(smallest, largest)
        return gp.PrimitiveTree(self.grow(self.root_type, self.generator.randint(smallest, depth), depth))

    # Changing

    def within_limits(self, tree: gp.PrimitiveTree) -> bool:
        """Whether a tree keeps the space's limits on nodes and depth."""
        return len(tree) <= self.space.limits.nodes and tree.height + 1 <= self.space.limits.depth

    def crossover(self, first: gp.PrimitiveTree, second: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """``first`` with one of its subtrees replaced by a subtree of ``second`` of the same type."""
        by_type = {kind: [i for i, item in enumerate(second) if item.ret is kind] for kind in (Voxel, Region, Scalar)}
        places = [i for i, item in enumerate(first) if i > 0 and by_type[item.ret]] or [0]
        place = self.generator.choice(places)
        donor = self.generator.choice(by_type[first[place].ret])
        return _replaced(first, place, second[second.searchSubtree(donor)])

    def combine(self, first: gp.PrimitiveTree, second: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """The weighted sum of two losses."""
        suffix = _KIND[self._number_kind] * 2
        add, mul = self.pset.mapping.get(f"add_{suffix}"), self.pset.mapping.get(f"mul_{suffix}")
        if add is None or mul is None or self.space.coefficients is None:
            return self.crossover(first, second)
        return gp.PrimitiveTree([add, *first, mul, _Leaf(self.coefficient(), self._number_kind), *second])

    def subtree(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """A random subtree replaced by a newly grown one of its type."""
        place = self.generator.randrange(len(tree))
        smallest, largest = self.space.limits.mutation_depth
        return _replaced(tree, place, self.grow(tree[place].ret, 1, self.generator.randint(smallest, largest)))

    def node(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """One node replaced: a primitive by another of its signature, a leaf by another leaf of its type."""
        place = self.generator.randrange(len(tree))
        item = tree[place]
        if item.arity == 0:
            return _replaced(tree, place, self.smallest(item.ret))
        same = self._alike(item)
        changed = gp.PrimitiveTree(tree)
        changed[place] = self._drawn(same)
        return changed

    def everywhere(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """One primitive replaced wherever it stands by another of its signature: every ``sum`` by ``batch_sum``."""
        places = [place for place, item in enumerate(tree) if item.arity]
        if not places:
            return self.node(tree)
        item = tree[self.generator.choice(places)]
        others = [primitive for primitive in self._alike(item) if primitive.name != item.name]
        if not others:
            return self.node(tree)
        chosen = self._drawn(others)
        return gp.PrimitiveTree([chosen if node.name == item.name else node for node in tree])

    def _alike(self, item: Any) -> list[Any]:
        """The primitives that take and give the same types."""
        return [primitive for primitive in self.pset.primitives[item.ret] if primitive.args == item.args]

    def insert(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """A new primitive between a node and its parent, its other operands newly grown; a subtree mutation where no
        primitive leads from a type to itself.
        """
        place = self.generator.randrange(len(tree))
        kept = tree[tree.searchSubtree(place)]
        wanted = tree[place].ret
        options = [primitive for primitive in self.pset.primitives[wanted] if wanted in primitive.args]
        if not options:
            return self.subtree(tree)
        primitive = self._drawn(options)
        position = self.generator.choice([i for i, argument in enumerate(primitive.args) if argument is wanted])
        smallest, _ = self.space.limits.mutation_depth
        subtree = [primitive]
        for i, argument in enumerate(primitive.args):
            subtree += kept if i == position else self.grow(argument, 1, smallest)
        return _replaced(tree, place, subtree)

    def shrink(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """A node replaced by one of its operands (DEAP ``mutShrink``)."""
        with drawing_from(self.generator):
            (changed,) = gp.mutShrink(gp.PrimitiveTree(tree))
        return changed

    def coefficients(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """Each coefficient multiplied by a log-normal factor with probability ½, at least one of them; a subtree
        mutation if none.
        """
        places = [i for i, item in enumerate(tree) if isinstance(item, _Leaf) and isinstance(item.value, float)]
        if not places:
            return self.subtree(tree)
        sure = self.generator.choice(places)
        changed = gp.PrimitiveTree(tree)
        for place in places:
            if place == sure or self.generator.random() < 0.5:
                value = tree[place].value * math.exp(self.generator.gauss(0.0, 0.5))
                changed[place] = _Leaf(float(f"{value:.4g}"), self._number_kind)
        return changed

    def glo_mutation(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """GLO's mutation: every node, bottom-up, may change by one of the four ways of ``strategy.node_mutation``."""
        rates = self.space.strategy.node_mutation
        changed = gp.PrimitiveTree(tree)
        for place in range(len(tree) - 1, -1, -1):
            item, chance = changed[place], self.generator.random()
            if item.arity == 0 and isinstance(item.value, int) and chance < rates.shift:
                changed[place] = _Leaf(item.value + self.generator.choice((-1, 1)), self._number_kind)
            elif item.arity == 0 and chance > 1 - rates.leaf:
                changed = _replaced(changed, place, self.smallest(item.ret))
            elif item.arity and chance < rates.replace:
                same = self._alike(item)
                changed[place] = self._drawn(same)
            elif item.arity and chance > 1 - rates.delete:
                changed = _replaced(changed, place, self.smallest(item.ret))
        return changed

    # Selecting

    def select(self, population: Sequence[Any], count: int) -> list[Any]:
        """Parents by the space's selection (DEAP ``selTournament``, ``selRoulette``); individuals carry ``fitness``."""
        strategy = self.space.strategy
        with drawing_from(self.generator):
            if strategy.selection == "tournament":
                size = min(strategy.tournament_size, len(population))
                return list(tools.selTournament(population, count, tournsize=size))
            chosen = list(tools.selRoulette(population, count))
        # DEAP's wheel selects nobody while every fitness is 0, as when each training of a generation has failed.
        return chosen + self.generator.choices(population, k=count - len(chosen))


def _replaced(tree: gp.PrimitiveTree, place: int, subtree: Sequence[Any]) -> gp.PrimitiveTree:
    changed = gp.PrimitiveTree(tree)
    changed[changed.searchSubtree(place)] = list(subtree)
    return changed


def _wrapped(template: str, inner: Node) -> Node:
    """The formula ``template`` with its ``{}`` replaced by a tree."""
    # "y" stands in for the tree while the template is parsed; a template names no terminal itself.
    from lossevo.expression.parser import parse

    root, _ = parse(template.format("y"))

    def visit(node: Node) -> Node:
        if node.name == "y":
            return inner
        return Node(node.name, tuple(visit(child) for child in node.children), node.value)

    return visit(root)


def _minimum_depths(pset: gp.PrimitiveSetTyped) -> dict[type, int]:
    """The depth of the smallest tree of each type, a Region's always with a reduction."""
    depths: dict[type, float] = {kind: 1 if pset.terminals[kind] else math.inf for kind in (Voxel, Scalar)}
    depths[Region] = math.inf
    for _ in range(len(depths)):
        for kind, primitives in list(pset.primitives.items()):
            for primitive in primitives:
                depths[kind] = min(depths[kind], 1 + max(depths[argument] for argument in primitive.args))
    return {kind: int(depth) for kind, depth in depths.items() if math.isfinite(depth)}
