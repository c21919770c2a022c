from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from deap import gp
from hypothesis import given, settings

from lossevo.configuration_file import checked
from lossevo.expression import PRIMITIVES, TERMINALS, Expression, ExpressionError, Kind
from lossevo.search.genetic.trees import Region, Scalar, Voxel
from lossevo.search.genetic.variation import Variation, drawing_from
from lossevo.search.space import SearchSpace, load_space
from lossevo.search.strategy_settings import NodeMutation
from tests.expression.strategies import expressions

SEGMENTATION = load_space("segmentation")
GLO = load_space("glo")
# The least that a space may hold: no number, so no leaf but voxel maps; no way from a type to itself.
BARE = checked(
    SearchSpace,
    {
        "name": "bare",
        "terminals": {"p": 1, "y": 1},
        "primitives": {"sum": 1, "class_mean": 1},
        "limits": {"initial_depth": [1, 2]},
    },
    "bare",
)
NUMBERLESS = checked(
    SearchSpace,
    {
        "name": "numberless",
        "terminals": {"p": 1, "y": 1},
        "primitives": {"mul": 1, "sub": 1, "foreground_mean": 1, "div": 1, "sum": 1},
        "seeds": ["1 - foreground_mean(2 * sum(p * y) / sum(p - y))", "0.7 * foreground_mean(sum(p * y))"],
    },
    "numberless",
)
EVERYTHING = checked(
    SearchSpace,
    {
        "name": "everything",
        "terminals": dict.fromkeys(TERMINALS, 1),
        "constants": {-1: 1, 0: 1, 2: 1},
        "coefficients": {},
        "primitives": dict.fromkeys(PRIMITIVES, 1),
    },
    "everything",
)
SPACES = [SEGMENTATION, GLO, BARE, NUMBERLESS, EVERYTHING]
UNARY = ("subtree", "node", "everywhere", "insert", "shrink", "coefficients")
BINARY = ("crossover", "combine")
GLO_RATES = GLO.strategy.node_mutation
each_space = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def variation(space: SearchSpace, seed: int = 0) -> Variation:
    return Variation(space, random.Random(seed))


def first_trees(made: Variation, count: int) -> list[gp.PrimitiveTree]:
    """Random trees, and the seeds of the space."""
    seeds = [made.trees.to_tree(seed) for seed in made.space.seed_expressions().values()]
    assert None not in seeds
    return [*seeds, *(made.random_tree() for _ in range(count))]


def written(tree: list) -> list[str]:
    """A tree as words: typed primitives, and leaves with their type."""
    return [f"{item.name}:{item.ret.__name__}" for item in tree]


def check_well_typed(made: Variation, tree: gp.PrimitiveTree) -> None:
    """Every operand is of the type its primitive declares, the root is of the space's, every word is the space's."""
    space, position = made.space, iter(tree)

    def check(wanted: type) -> None:
        item = next(position)
        assert item.ret is wanted
        if item.arity:
            assert item is made.trees.pset.mapping[item.name]
            for argument in item.args:
                check(argument)
        elif isinstance(item.value, str):
            assert item.value in space.terminals
            assert wanted is {Kind.VOXEL: Voxel, Kind.REGION: Region, Kind.SCALAR: Scalar}[TERMINALS[item.value].kind]
        else:
            assert wanted is (Voxel if space.root == "voxel" else Scalar)

    check(made.trees.root_type)
    assert next(position, None) is None


def express(made: Variation, tree: gp.PrimitiveTree) -> Expression | None:
    """The expression of a tree; None where it is beyond the limits, or one number in a voxel space."""
    try:
        return made.trees.to_expression(tree)
    except ExpressionError:
        assert made.space.root == "voxel" or not made.within_limits(tree)
        return None


class TestEveryTree:
    """However trees are made from each other, they stay what the space declares."""

    @each_space
    @pytest.mark.parametrize("seed", range(12))
    def test_it_is_well_typed_and_expressible(self, space, seed):
        made = variation(space, seed)
        trees = first_trees(made, 20)
        for step in range(150):
            choice = made.generator.choice
            if step % 7 == 0:
                trees.append(made.glo_mutation(choice(trees), GLO_RATES))
            elif step % 11 == 0:
                trees.append(choice(made.exchange(choice(trees), choice(trees))))
            elif step % 3:
                trees.append(getattr(made, choice(UNARY))(choice(trees)))
            else:
                trees.append(getattr(made, choice(BINARY))(choice(trees), choice(trees)))
            if not made.within_limits(trees[-1]):
                trees.pop()
        for tree in trees:
            check_well_typed(made, tree)
        built = [expression for tree in trees if (expression := express(made, tree))]
        assert len(built) > len(trees) / 2
        for expression in built:
            assert expression.root.kind is Kind.SCALAR
            assert expression.terminals <= space.terminals.keys()
            words = {node.name for node in expression.root.walk() if node.children}
            assert space.root == "voxel" or words <= space.primitives.keys()

    @each_space
    def test_parents_are_left_alone(self, space):
        made = variation(space, 3)
        for _ in range(60):
            first, second = made.random_tree(), made.random_tree()
            before = written(first), written(second)
            for operator in UNARY:
                getattr(made, operator)(first)
            for operator in BINARY:
                getattr(made, operator)(first, second)
            made.exchange(first, second)
            made.glo_mutation(first, NodeMutation(shift=0.2, replace=0.2, delete=0.1, grow=0.3))
            assert (written(first), written(second)) == before

    @each_space
    def test_random_trees_are_as_deep_as_asked(self, space):
        made = variation(space, 4)
        smallest, largest = space.limits.initial_depth
        needed = made._min_depth[made.trees.root_type]
        depths = {made.random_tree().height + 1 for _ in range(300)}
        assert min(depths) >= min(smallest, needed)
        assert max(depths) <= max(largest, needed)
        assert space is BARE or {smallest, largest} <= depths | {needed}

    @given(expressions(max_depth=5))
    @settings(max_examples=300)
    def test_an_expression_survives_the_way_there_and_back(self, expression):
        made = variation(EVERYTHING)
        tree = made.trees.to_tree(expression)
        check_well_typed(made, tree)
        assert made.trees.to_expression(tree) == expression

    @pytest.mark.parametrize("space", [SEGMENTATION, NUMBERLESS, EVERYTHING], ids=lambda space: space.name)
    def test_a_tree_survives_the_way_there_and_back(self, space):
        made = variation(space, 5)
        for tree in first_trees(made, 200):
            assert written(made.trees.to_tree(made.trees.to_expression(tree))) == written(tree)

    @pytest.mark.parametrize("formula", ["class_mean(mean(p * y))", "foreground_mean(sum(d - y))"])
    def test_what_the_space_has_no_word_for_is_no_tree(self, formula):
        assert variation(NUMBERLESS).trees.to_tree(Expression.parse(formula)) is None

    def test_voxel_trees_are_wrapped(self):
        made = variation(GLO)
        mapping = made.trees.pset.mapping
        tree = gp.PrimitiveTree([mapping["mul_VV"], made.trees.pset.mapping["p"], made.trees.pset.mapping["y"]])
        assert made.trees.to_expression(tree) == Expression.parse("-class_mean(mean(p * y))")
        with pytest.raises(ExpressionError):
            made.trees.to_expression(gp.PrimitiveTree([made.trees.pset.mapping["1"]]))


class TestGenerator:
    """Everything is drawn from the generator given, and from nothing else."""

    @staticmethod
    def evolved(space: SearchSpace, seed: int) -> list[list[str]]:
        made = variation(space, seed)
        trees = first_trees(made, 12)
        for _ in range(60):
            for operator in UNARY:
                trees.append(getattr(made, operator)(made.generator.choice(trees)))
            for operator in BINARY:
                trees.append(getattr(made, operator)(made.generator.choice(trees), made.generator.choice(trees)))
            trees = [tree for tree in trees if made.within_limits(tree)]
            trees += made.exchange(*made.generator.sample(trees, 2))
            trees = [made.glo_mutation(tree, GLO_RATES) for tree in made.generator.choices(trees, k=12)]
            trees = [tree for tree in trees if made.within_limits(tree)] or [made.random_tree()]
        return [written(tree) for tree in trees]

    @each_space
    def test_the_same_seed_gives_the_same_trees(self, space):
        assert self.evolved(space, 1) == self.evolved(space, 1)
        assert self.evolved(space, 1) != self.evolved(space, 2)

    @each_space
    def test_global_generators_are_neither_read_nor_moved(self, space):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global generator is what is tested
        before, numpy_before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        expected = self.evolved(space, 1)
        assert random.getstate() == before
        assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
        random.seed(2)
        assert self.evolved(space, 1) == expected

    def test_the_global_generator_is_given_back_after_an_error(self):
        def draw_and_fail() -> None:
            with drawing_from(generator):
                random.random()
                raise ZeroDivisionError

        generator, twin, before = random.Random(1), random.Random(1), random.getstate()
        with pytest.raises(ZeroDivisionError):
            draw_and_fail()
        assert random.getstate() == before
        twin.random()
        assert generator.getstate() == twin.getstate()


class TestWeights:
    """What is drawn comes as often as the space says."""

    DRAWS = 6000

    def check(self, draw: Callable[[], str], weights: dict[str, float]) -> None:
        counts = Counter(draw() for _ in range(self.DRAWS))
        assert counts.keys() <= weights.keys()
        for word, weight in weights.items():
            share = weight / sum(weights.values())
            tolerance = 4.5 * math.sqrt(share * (1 - share) / self.DRAWS)
            assert counts[word] / self.DRAWS == pytest.approx(share, abs=tolerance), word

    def test_leaves_of_voxel_type(self):
        made = variation(SEGMENTATION)
        self.check(lambda: made.leaf(Voxel).name, {"p": 3, "y": 3, "logp": 2, "d": 1})

    def test_leaves_of_scalar_type(self):
        made = variation(SEGMENTATION)

        def draw() -> str:
            value = made.leaf(Scalar).value
            return "coefficient" if isinstance(value, float) else str(value)

        self.check(draw, {"1": 2, "2": 1, "coefficient": 3})

    def test_leaves_of_a_voxel_space_are_of_one_type(self):
        made = variation(GLO)
        self.check(lambda: made.leaf(Voxel).name, {"y": 3, "p": 3, "1": 1, "-1": 1})

    def test_there_is_no_leaf_of_region_type(self):
        assert variation(SEGMENTATION).leaf(Region) is None

    @pytest.mark.parametrize(("kind", "names"), [(Voxel, "elementwise"), (Scalar, "elementwise and class reductions")])
    def test_primitives_however_many_variants_they_have(self, kind, names):
        made = variation(SEGMENTATION)
        fitting = {
            name: weight
            for name, weight in SEGMENTATION.primitives.items()
            if PRIMITIVES[name].elementwise or (kind is Scalar and PRIMITIVES[name].target is Kind.SCALAR)
        }
        self.check(lambda: made.grow(kind, 2, 3)[0].name.removesuffix("_mean").split("_")[0], self.shortened(fitting))

    @staticmethod
    def shortened(weights: dict[str, float]) -> dict[str, float]:
        total: Counter[str] = Counter()
        for name, weight in weights.items():
            total[name.removesuffix("_mean").split("_")[0]] += weight
        return dict(total)

    def test_operands_of_one_kind_are_four_times_as_likely_as_a_broadcast(self):
        only = SEGMENTATION.model_copy(update={"primitives": {"mul": 1, "sum": 1, "class_mean": 1}})
        made = variation(only)
        shares = {"mul_VV": 4, "mul_VR": 1, "mul_RV": 1, "mul_VS": 1, "mul_SV": 1}
        self.check(lambda: made.grow(Voxel, 2, 3)[0].name, shares)

    def test_coefficients_are_log_uniform_within_their_range(self):
        made = variation(SEGMENTATION)
        drawn = np.array([made.coefficient() for _ in range(self.DRAWS)])
        assert drawn.min() >= 0.1
        assert drawn.max() <= 10
        counts, _ = np.histogram(np.log10(drawn), bins=10, range=(-1, 1))
        assert counts / self.DRAWS == pytest.approx(np.full(10, 0.1), abs=0.02)


class TestOperators:
    def test_crossover_puts_a_subtree_of_the_second_into_the_first(self):
        made = variation(SEGMENTATION, 7)
        for _ in range(200):
            first, second = made.random_tree(), made.random_tree()
            child = written(made.crossover(first, second))
            donors = [written(second[second.searchSubtree(i)]) for i in range(len(second))]
            slots = [first.searchSubtree(i) for i in range(len(first))]
            a = written(first)
            assert any(
                child == [*a[: slot.start], *donor, *a[slot.stop :]]
                for slot in slots
                for donor in donors
                if len(child) == len(a) - (slot.stop - slot.start) + len(donor)
            )

    def test_combine_is_a_weighted_sum(self):
        made = variation(SEGMENTATION, 8)
        first, second = made.random_tree(), made.random_tree()
        combined = made.trees.to_expression(made.combine(first, second)).root
        assert combined.name == "add"
        assert combined.children[1].name == "mul"
        assert combined.children[0] == made.trees.to_expression(first).root
        assert combined.children[1].children[0].name == "coefficient"

    def test_node_keeps_the_shape(self):
        made = variation(SEGMENTATION, 9)
        for _ in range(200):
            tree = made.random_tree()
            child = made.node(tree)
            assert [item.arity for item in child] == [item.arity for item in tree]
            assert sum(a != b for a, b in zip(written(tree), written(child), strict=True)) <= 1

    def test_everywhere_replaces_one_primitive_wherever_it_stands(self):
        made = variation(SEGMENTATION, 14)
        tree = made.trees.to_tree(Expression.parse("foreground_mean(sum(p * y) / (sum(p) + sum(y)))"))
        children = {str(made.trees.to_expression(made.everywhere(tree))) for _ in range(300)}
        assert "foreground_mean(batch_sum(p * y) / (batch_sum(p) + batch_sum(y)))" in children
        assert "class_sum(sum(p * y) / (sum(p) + sum(y)))" in children
        assert not any("batch_sum" in child and " sum" in child for child in children)

    def test_insert_keeps_the_tree_below_a_new_node(self):
        made = variation(SEGMENTATION, 10)
        for _ in range(200):
            tree = made.random_tree()
            child = made.insert(tree)
            assert len(child) > len(tree)
            rest = iter(written(child))
            assert all(word in rest for word in written(tree))  # a subsequence

    def test_shrink_never_grows(self):
        made = variation(SEGMENTATION, 11)
        sizes = [(len(tree), len(made.shrink(tree))) for tree in (made.random_tree() for _ in range(200))]
        assert all(after <= before for before, after in sizes)
        assert sum(after < before for before, after in sizes) > 100

    def test_coefficients_moves_coefficients_alone(self):
        made = variation(SEGMENTATION, 12)
        tree = made.trees.to_tree(Expression.parse("2 - 0.5 * class_mean(mean(p * y * 3.0))"))
        moved = set()
        for _ in range(100):
            child = made.trees.to_expression(made.coefficients(tree))
            assert child.root == made.trees.to_expression(tree).root
            changed = [a != b for a, b in zip(child.coefficients, (0.5, 3.0), strict=True)]
            assert any(changed)
            assert all(value > 0 for value in child.coefficients)
            moved.add(tuple(changed))
        assert moved == {(True, False), (False, True), (True, True)}

    def test_exchange_gives_two_children_of_which_nothing_is_lost(self):
        made = variation(GLO, 15)
        roots = 0
        for _ in range(300):
            first, second = (gp.PrimitiveTree(made.element(Voxel, 4)) for _ in range(2))
            one, two = made.exchange(first, second)
            assert sorted(written(one) + written(two)) == sorted(written(first) + written(second))
            roots += written(one) == written(second)
        assert roots > 0, "the whole tree may be exchanged, too"

    def test_an_element_is_any_word_of_the_space_by_its_weight(self):
        """Of GLO: log, x, y three times as likely as + − × ÷ 1 −1, the root twice."""
        made, draws = variation(GLO, 16), 6000
        counts = Counter(made.element(Voxel, 2)[0].name.removesuffix("_VV").removesuffix("_V") for _ in range(draws))
        weights = {**GLO.primitives, "y": 3, "p": 3, "1": 1, "-1": 1}
        for word, weight in weights.items():
            assert counts[word] / draws == pytest.approx(weight / sum(weights.values()), abs=0.025), word
        assert {made.element(Voxel, 1)[0].arity for _ in range(50)} == {0}
        assert max(gp.PrimitiveTree(made.element(Voxel, 3)).height for _ in range(200)) == 2

    def test_glo_mutation_does_what_its_rates_say(self):
        off = dict.fromkeys(("shift", "replace", "delete", "grow"), 0.0)

        def mutated(**rates: float) -> list[tuple[gp.PrimitiveTree, gp.PrimitiveTree]]:
            made = variation(GLO, 13)
            trees = [gp.PrimitiveTree(made.grow(Voxel, 3, 4)) for _ in range(50)]
            return [(tree, made.glo_mutation(tree, NodeMutation(**{**off, **rates}))) for tree in trees]

        for tree, child in mutated():
            assert written(child) == written(tree)
        for tree, child in mutated(shift=1.0):
            for before, after in zip(tree, child, strict=True):
                number = before.arity == 0 and isinstance(before.value, int)
                assert abs(after.value - before.value) == 1 if number else after.name == before.name
        changed = 0
        for tree, child in mutated(replace=1.0):
            assert [item.arity for item in child] == [item.arity for item in tree]
            changed += any(a.name != b.name for a, b in zip(tree, child, strict=True) if a.arity == 0)
        assert changed > 0, "leaves are replaced, too"
        for _, child in mutated(delete=1.0):
            assert len(child) == 1
        grown = 0
        for tree, child in mutated(grow=1.0):
            inner = [item.name for item in tree if item.arity]
            assert [item.name for item in child if item.arity][: len(inner)] or not inner
            grown += len(child) > len(tree)
        assert grown > 10

    def test_a_leaf_may_grow_as_often_as_glo_says(self):
        """2.5 % times the share of operators among the elements, 10 of 18."""
        made, draws = variation(GLO, 17), 20_000
        leaf = gp.PrimitiveTree([made.trees.pset.mapping["p"]])
        grown = sum(len(made.glo_mutation(leaf, GLO_RATES)) > 1 for _ in range(draws))
        assert grown / draws == pytest.approx(0.025 * 10 / 18, abs=0.004)
