"""Variation on DEAP: strongly typed trees, drawn, crossed and mutated with an explicit generator.

DEAP's operators draw from Python's global generator, so they run under :func:`drawing_from`, which lends them the
state of an explicit one and gives the global state back. Some are replaced: ``cxOnePoint`` picks a type from a set
whose order depends on memory addresses (DEAP issues 177, 190), ``generate`` knows no node weights, and both it and
``mutInsert`` fail where a type (Region) has no terminal.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deap import gp

from lossevo.expression import COEFFICIENT, TERMINALS
from lossevo.search.genetic.trees import LETTER, TYPE, Leaf, Region, Scalar, Trees, Voxel, word
from lossevo.search.space import SearchSpace
from lossevo.search.strategy_settings import NodeMutation


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


class Variation:
    """Makes new trees of one search space. ``generator`` is what it draws from; give it another at any time."""

    def __init__(self, space: SearchSpace, generator: random.Random | None = None) -> None:
        self.space = space
        self.generator = generator or random.Random(0)
        self.trees = Trees(space)
        self._pset = self.trees.pset
        self._number_kind = self.trees.number_kind
        self._min_depth = _minimum_depths(self._pset)
        self._variants = Counter(word(item) for group in self._pset.primitives.values() for item in group)

    # Drawing

    def leaf(self, kind_type: type) -> Any:
        """A weighted random leaf of a type; None if the type has none."""
        options = self._leaf_weights(kind_type)
        if not options:
            return None
        (value,) = self.generator.choices([value for value, _ in options], [weight for _, weight in options])
        if value == COEFFICIENT:
            return Leaf(self.coefficient(), self._number_kind)
        return Leaf(value, TERMINALS[value].kind if isinstance(value, str) else self._number_kind)

    def _leaf_weights(self, kind_type: type) -> list[tuple[str | int, float]]:
        options: list[tuple[str | int, float]] = [
            (name, weight) for name, weight in self.space.terminals.items() if TYPE[TERMINALS[name].kind] is kind_type
        ]
        if kind_type is TYPE[self._number_kind]:
            options += self.space.constants.items()
            if self.space.coefficients:
                options.append((COEFFICIENT, self.space.coefficients.weight))
        return options

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
        options = [primitive for primitive in self._pset.primitives[kind_type] if self._reach(primitive) <= max_depth]
        needs_primitive = min_depth > 1 or self._min_depth[kind_type] > 1
        if kind_type is Region:
            # Regions are what reductions make; their one terminal must not end every tree of them.
            ends = bool(self._pset.terminals[Region]) and min_depth <= 1 and self.generator.random() < 0.1
        else:
            ends = not options or not (needs_primitive or self.generator.random() < 0.5)
        if ends:
            leaf = self.leaf(kind_type)
            if leaf is not None:
                return [leaf]
        if not options:
            options = [
                min(self._pset.primitives[kind_type], key=lambda primitive: (self._reach(primitive), primitive.name))
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
            total[word(primitive)] += share
        weights = [
            self.space.primitives[word(primitive)] * share / total[word(primitive)]
            for primitive, share in zip(options, shares, strict=True)
        ]
        return self.generator.choices(options, weights)[0]

    def random_tree(self) -> gp.PrimitiveTree:
        """A new random tree."""
        smallest, largest = self.space.limits.initial_depth
        depth = self.generator.randint(smallest, largest)
        return gp.PrimitiveTree(self.grow(self.trees.root_type, self.generator.randint(smallest, depth), depth))

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
        suffix = LETTER[self._number_kind] * 2
        add, mul = self._pset.mapping.get(f"add_{suffix}"), self._pset.mapping.get(f"mul_{suffix}")
        if add is None or mul is None or self.space.coefficients is None:
            return self.crossover(first, second)
        return gp.PrimitiveTree([add, *first, mul, Leaf(self.coefficient(), self._number_kind), *second])

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
        return [primitive for primitive in self._pset.primitives[item.ret] if primitive.args == item.args]

    def insert(self, tree: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """A new primitive between a node and its parent, its other operands newly grown; a subtree mutation where no
        primitive leads from a type to itself.
        """
        place = self.generator.randrange(len(tree))
        kept = tree[tree.searchSubtree(place)]
        wanted = tree[place].ret
        options = [primitive for primitive in self._pset.primitives[wanted] if wanted in primitive.args]
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
        places = [i for i, item in enumerate(tree) if isinstance(item, Leaf) and isinstance(item.value, float)]
        if not places:
            return self.subtree(tree)
        sure = self.generator.choice(places)
        changed = gp.PrimitiveTree(tree)
        for place in places:
            if place == sure or self.generator.random() < 0.5:
                value = tree[place].value * math.exp(self.generator.gauss(0.0, 0.5))
                changed[place] = Leaf(float(f"{value:.4g}"), self._number_kind)
        return changed

    def exchange(self, first: gp.PrimitiveTree, second: gp.PrimitiveTree) -> tuple[gp.PrimitiveTree, gp.PrimitiveTree]:
        """Both with one subtree of a type exchanged; the whole trees are subtrees, too. Two children, as in GLO."""
        types = {item.ret for item in first} & {item.ret for item in second}
        place = self.generator.choice([i for i, item in enumerate(first) if item.ret in types])
        donor = self.generator.choice([i for i, item in enumerate(second) if item.ret is first[place].ret])
        mine, theirs = first[first.searchSubtree(place)], second[second.searchSubtree(donor)]
        return _replaced(first, place, theirs), _replaced(second, donor, mine)

    def element(self, kind_type: type, max_depth: int) -> list[Any]:
        """A tree of a type whose every node is drawn from all elements of the space, operators and leaves, by their
        weights, down to leaves at ``max_depth``.
        """
        operators = [primitive for primitive in self._pset.primitives[kind_type] if self._reach(primitive) <= max_depth]
        leaves = self._leaf_weights(kind_type)
        inner = sum(self._weight(primitive) for primitive in operators)
        outer = sum(weight for _, weight in leaves)
        if not inner or self.generator.random() * (inner + outer) < outer:
            return self.smallest(kind_type)
        primitive = self.generator.choices(operators, [self._weight(primitive) for primitive in operators])[0]
        tree = [primitive]
        for argument in primitive.args:
            tree += self.element(argument, max_depth - 1)
        return tree

    def weighted_tree(self) -> gp.PrimitiveTree:
        """A new tree of elements drawn by their weights, as deep as a random tree may be; GLO's first generation."""
        _, largest = self.space.limits.initial_depth
        return gp.PrimitiveTree(self.element(self.trees.root_type, largest))

    def _weight(self, primitive: Any) -> float:
        """A word's weight, shared out among its variants."""
        return self.space.primitives[word(primitive)] / self._variants[word(primitive)]

    def glo_mutation(self, tree: gp.PrimitiveTree, rates: NodeMutation) -> gp.PrimitiveTree:
        """GLO's mutation: every node, bottom-up, may change by one of the ways of ``rates``."""
        changed = gp.PrimitiveTree(tree)
        for place in range(len(tree) - 1, -1, -1):
            item, chance = changed[place], self.generator.random()
            shift = rates.shift if item.arity == 0 and isinstance(item.value, int) else 0.0
            if chance < shift:
                changed[place] = Leaf(item.value + self.generator.choice((-1, 1)), self._number_kind)
            elif chance < shift + rates.replace:
                if item.arity:
                    changed[place] = self._drawn(self._alike(item))
                else:
                    changed = _replaced(changed, place, self.smallest(item.ret))
            elif item.arity and chance < rates.replace + rates.delete:
                changed = _replaced(changed, place, self.smallest(item.ret))
            elif not item.arity and chance < shift + rates.replace + rates.grow:
                changed = _replaced(changed, place, self.element(item.ret, 2))
        return changed


def _replaced(tree: gp.PrimitiveTree, place: int, subtree: Sequence[Any]) -> gp.PrimitiveTree:
    changed = gp.PrimitiveTree(tree)
    changed[changed.searchSubtree(place)] = list(subtree)
    return changed


def _minimum_depths(pset: gp.PrimitiveSetTyped) -> dict[type, int]:
    """The depth of the smallest tree of each type, a Region's always with a reduction."""
    depths: dict[type, float] = {kind: 1 if pset.terminals[kind] else math.inf for kind in (Voxel, Scalar)}
    depths[Region] = math.inf
    for _ in range(len(depths)):
        for kind, primitives in list(pset.primitives.items()):
            for primitive in primitives:
                depths[kind] = min(depths[kind], 1 + max(depths[argument] for argument in primitive.args))
    return {kind: int(depth) for kind, depth in depths.items() if math.isfinite(depth)}
