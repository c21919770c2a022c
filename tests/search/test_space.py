from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lossevo.errors import LossevoError
from lossevo.expression import PRIMITIVES, TERMINALS, Expression
from lossevo.search.space import SearchSpace, available, load_space
from lossevo.search.strategy_settings import Operators

SMALLEST: dict[str, Any] = {
    "name": "mine",
    "terminals": {"p": 1, "y": 1},
    "primitives": {"mul": 1, "sum": 1, "class_mean": 1},
}
VOXEL = {
    **SMALLEST,
    "root": "voxel",
    "wrap": "-class_mean(mean({}))",
    "primitives": {"mul": 1, "add": 2},
    "constants": {1: 1},
}
TUNED: dict[str, Any] = {
    "name": "mine",
    "seeds": ["dice", "tversky"],
    "simplify": False,
    "tuning": {"structures": 0},
    "strategy": {"kind": "tuned_catalogue"},
}
TAYLOR: dict[str, Any] = {
    "name": "mine",
    "root": "voxel",
    "wrap": "-class_mean(mean({}))",
    "simplify": False,
    "tuning": {"structures": 0},
    "strategy": {"kind": "taylorglo"},
}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``document`` with the entry at a dotted path replaced."""
    key, _, rest = path.partition(".")
    return {**document, key: changed(document.get(key, {}), rest, value) if rest else value}


@pytest.fixture
def write(tmp_path):
    def write_(document: Any) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
        return path

    return write_


@pytest.fixture
def complaint(write):
    """The message with which a document is refused; it begins with the name of the file."""

    def complaint_(document: Any) -> str:
        path = write(document)
        with pytest.raises(LossevoError) as caught:
            load_space(str(path))
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    return complaint_


class TestShippedSpaces:
    def test_they_are_known_by_name(self):
        assert {"segmentation", "glo"} <= available().keys()
        for name in available():
            assert load_space(name).name == name

    def test_the_default_space_has_its_words_and_seeds(self):
        space = load_space("segmentation")
        assert space.root == "scalar"
        assert space.terminals.keys() <= TERMINALS.keys()
        assert space.primitives.keys() <= PRIMITIVES.keys()
        seeds = space.seed_expressions()
        assert {"cross_entropy", "focal", "dice", "tversky", "baikal", "boundary"} <= seeds.keys()
        assert all(isinstance(seed, Expression) for seed in seeds.values())

    def test_glo_is_as_published(self):
        space = load_space("glo")
        assert (space.root, space.strategy.kind, space.strategy.selection) == (
            "voxel",
            "generational",
            "roulette",
        )
        assert space.terminals.keys() == {"p", "y"}
        assert space.constants.keys() == {1, -1}
        assert space.primitives.keys() == {"add", "sub", "mul", "div", "log", "sqrt", "square"}
        assert (space.strategy.population, space.strategy.elites, space.strategy.crossover_rate) == (80, 6, 0.8)
        assert not space.screening
        assert not space.simplify
        assert space.tuning.coefficients == "per_node"

    def test_taylorglo_is_as_published(self):
        space = load_space("taylorglo")
        assert (space.wrap, space.root, space.seeds) == (load_space("glo").wrap, "voxel", ())
        assert (space.strategy.sigma, space.strategy.population, space.strategy.invariant) == (1.2, 20, True)
        assert not space.screening

    def test_the_rival_is_trained_as_the_default_space_is(self):
        rival, own = load_space("tuned_catalogue"), load_space("segmentation")
        assert rival.allocation == own.allocation
        assert rival.budget == own.budget
        assert {*own.seeds} <= {*rival.seeds}

    @pytest.mark.parametrize("name", ["tuned_catalogue", "taylorglo", "auto_seg_loss"])
    def test_a_strategy_without_trees_has_no_words_and_is_not_tuned_twice(self, name):
        space = load_space(name)
        assert not space.strategy.builds_trees
        assert not {"terminals", "primitives", "constants", "coefficients", "limits"} & space.model_fields_set
        assert space.tuning.structures == 0


class TestLoading:
    def test_the_smallest_space(self, write):
        space = load_space(str(write(SMALLEST)))
        assert (space.name, space.budget.trainings, space.strategy.kind) == ("mine", 240, "steady_state")

    def test_a_voxel_space(self, write):
        assert load_space(str(write(VOXEL))).wrap == "-class_mean(mean({}))"

    def test_formulas_are_seeds_too(self, write):
        space = load_space(str(write({**SMALLEST, "seeds": ["class_mean(sum(p * y * 0.5))"]})))
        (seed,) = space.seed_expressions().values()
        assert seed == Expression.parse("class_mean(sum(p * y * 0.5))")

    def test_a_space_survives_the_way_through_json(self):
        for name in available():
            space = load_space(name)
            assert SearchSpace.model_validate_json(space.model_dump_json()) == space

    def test_an_unknown_name_gives_the_nearest(self):
        with pytest.raises(LossevoError, match=r"no search space 'segmentaton' \(did you mean 'segmentation'\?\)"):
            load_space("segmentaton")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(LossevoError, match=r"no search space '.*absent\.yaml'; give one of .*glo.* or the path"):
            load_space(str(tmp_path / "absent.yaml"))

    def test_a_folder_is_no_space(self, tmp_path):
        with pytest.raises(LossevoError, match="no search space"):
            load_space(str(tmp_path))

    @pytest.mark.parametrize(
        ("text", "complains"),
        [
            ("name: [unclosed", "cannot be read as YAML"),
            ("name: a\n\tb: 2", "cannot be read as YAML"),
            ("", "expected keys and values (name, terminals, primitives, …), found NoneType"),
            ("- a\n- b", "found list"),
            ("!!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ],
    )
    def test_what_is_no_mapping_is_refused(self, complaint, text, complains):
        assert complains in complaint(text)

    def test_what_is_no_text_is_refused(self, tmp_path):
        path = tmp_path / "space.yaml"
        path.write_bytes(b"name: \xff\xfe")
        with pytest.raises(LossevoError, match="cannot be read as YAML"):
            load_space(str(path))


class TestWrongKeys:
    """An unknown key is named with its place and the nearest right word, at every level."""

    @pytest.mark.parametrize(
        ("path", "meant"),
        [
            ("termnals", "terminals"),
            ("stratgy", "strategy"),
            ("budget.training", "trainings"),
            ("limits.node", "nodes"),
            ("coefficients.weigth", "weight"),
            ("tuning.sigm", "sigma"),
            ("strategy.tournamentsize", "tournament_size"),
            ("strategy.operators.crosover", "crossover"),
        ],
    )
    def test_unknown(self, complaint, path, meant):
        assert complaint(changed(SMALLEST, path, 1)).startswith(f"unknown key '{path}' (did you mean '{meant}'?)")

    def test_the_keys_known_there_are_listed(self, complaint):
        assert complaint(changed(SMALLEST, "coefficients.x", 1)).endswith("known here: weight, low, high")

    def test_a_key_that_is_no_text(self, complaint):
        assert "7" in complaint({**SMALLEST, 7: 1})

    @pytest.mark.parametrize("key", ["name", "terminals", "primitives"])
    def test_missing(self, complaint, key):
        document = {name: value for name, value in SMALLEST.items() if name != key}
        assert complaint(document) == f"key '{key}' is missing"

    def test_several_problems_are_counted(self, complaint):
        assert complaint({**SMALLEST, "a": 1, "b": 2, "c": 3}).endswith("(and 2 more)")


class TestWrongWords:
    def test_primitive(self, complaint):
        message = complaint(changed(SMALLEST, "primitives.batchsum", 1))
        assert message.startswith("primitives: unknown name 'batchsum' (did you mean 'batch_sum'?)")

    def test_terminal(self, complaint):
        message = complaint(changed(SMALLEST, "terminals.log_p", 1))
        assert message.startswith("terminals: unknown name 'log_p' (did you mean 'logp'?)")

    def test_seed(self, complaint):
        message = complaint({**SMALLEST, "seeds": ["tverski"]})
        assert message.startswith("seeds: 'tverski' is not a loss with an expression (did you mean 'tversky'?)")

    def test_seed_formula(self, complaint):
        message = complaint({**SMALLEST, "seeds": ["class_mean(sum(p * z))"]})
        assert message.startswith("seeds: ")
        assert "'z'" in message

    @pytest.mark.parametrize(
        ("path", "value", "complains"),
        [
            ("root", "scaler", "root: found 'scaler', expected 'scalar' or 'voxel' (did you mean 'scalar'?)"),
            ("strategy.kind", "steady", "(did you mean 'steady_state'?)"),
            ("strategy.selection", "roulete", "(did you mean 'roulette'?)"),
            ("tuning.coefficients", "pernode", "(did you mean 'per_node'?)"),
            ("tuning.scale", "logarithmic", "expected 'log' or 'linear'"),
        ],
    )
    def test_choice(self, complaint, path, value, complains):
        message = complaint(changed(SMALLEST, path, value))
        assert message.startswith(f"{path}: found '{value}'")
        assert complains in message


class TestWrongValues:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("name", 7),
            ("name", "a/b"),
            ("terminals", ["p", "y"]),
            ("terminals.p", "much"),
            ("terminals.p", 0),
            ("terminals.p", float("nan")),
            ("primitives.mul", float("inf")),
            ("constants.1001", 1),
            ("constants.half", 1),
            ("coefficients", 3),
            ("coefficients.low", 0),
            ("coefficients.high", 0.01),
            ("coefficients.high", 1e13),
            ("limits.nodes", "many"),
            ("limits.nodes", 10_000),
            ("limits.depth", 1000),
            ("limits.initial_depth", 4),
            ("limits.initial_depth", [8, 4]),
            ("limits.initial_depth", [4, 40]),
            ("limits.mutation_depth", [0, 2]),
            ("seeds", "dice"),
            ("strategy.population", 1),
            ("allocation.elite_share", 1.5),
            ("allocation.elite_seeds", 501),
            ("allocation.eta", 1),
            ("strategy.operators.node", -1),
            ("strategy.operators", dict.fromkeys(Operators.model_fields, 0)),
            ("strategy", {"kind": "generational", "node_mutation": {"shift": 2}}),
            ("strategy", {"kind": "ageing", "restart": 2}),
            ("tuning.sigma", 0),
            ("budget.trainings", 0),
            ("budget.tuning_share", 0.8),
            ("budget.confirmation_seeds", 0),
            ("budget.window", 0),
            ("budget", [1, 2]),
        ],
    )
    def test_the_key_is_named(self, complaint, path, value):
        message = complaint(changed(SMALLEST, path, value))
        assert message.startswith(path.partition(".")[0])
        assert path.rpartition(".")[2] in message

    @pytest.mark.parametrize("terminals", [{"p": 1}, {"y": 1}, {"y": 1, "d": 1}])
    def test_a_loss_needs_target_and_prediction(self, complaint, terminals):
        assert complaint({**SMALLEST, "terminals": terminals}).startswith("terminals: a loss needs the target")

    @pytest.mark.parametrize("primitives", [{"mul": 1}, {"sum": 1, "mul": 1}, {"class_mean": 1}, {}])
    def test_a_scalar_root_needs_reductions_of_both_kinds(self, complaint, primitives):
        assert complaint({**SMALLEST, "primitives": primitives}).startswith("primitives: root scalar needs reductions")

    def test_a_scalar_root_wraps_nothing(self, complaint):
        assert complaint({**SMALLEST, "wrap": "class_mean(mean({}))"}).startswith("wrap: only a space with root voxel")

    @pytest.mark.parametrize(
        ("wrap", "complains"),
        [
            (None, "wrap: root voxel needs a formula with one {}"),
            ("class_mean(mean(p))", "wrap: root voxel needs a formula with one {}"),
            ("class_mean(mean({} + {}))", "wrap: root voxel needs a formula with one {}"),
            ("mean({})", "wrap: a loss must be one number"),
            ("class_mean({})", "wrap: formula, position 1: class_mean reduces a region value"),
            ("class_mean(mean({})", "wrap: "),
            ("{0} + {}", "wrap: "),
            ("class_mean(mean({} * p))", "wrap: only integers may stand beside {}"),
            ("class_mean(mean({} * y))", "wrap: only integers may stand beside {}"),
            ("2.0 * class_mean(mean({}))", "wrap: only integers may stand beside {}"),
        ],
    )
    def test_a_voxel_root_needs_a_right_wrap(self, complaint, wrap, complains):
        assert complaint({**VOXEL, "wrap": wrap}).startswith(complains)

    @pytest.mark.parametrize("primitives", [{}, {"mul": 1, "sum": 1}])
    def test_a_voxel_root_is_built_of_elementwise_primitives(self, complaint, primitives):
        assert complaint({**VOXEL, "primitives": primitives}).startswith("primitives: root voxel needs elementwise")

    def test_a_voxel_root_takes_no_seeds(self, complaint):
        assert complaint({**VOXEL, "seeds": ["dice"]}).startswith("seeds: a space with root voxel takes none")

    def test_a_seed_needs_its_words_in_the_space(self, complaint):
        message = complaint({**SMALLEST, "seeds": ["boundary"]})
        assert message.startswith("seeds: 'boundary' needs 'd', 'foreground_mean', 'mean', which this space lacks")


class TestWithoutTrees:
    def test_no_words_are_needed(self, write):
        assert load_space(str(write(TUNED))).strategy.tournament_size == 4
        assert load_space(str(write(TAYLOR))).strategy.sigma == 1.2

    @pytest.mark.parametrize("document", [TUNED, TAYLOR])
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("terminals", {"p": 1, "y": 1}),
            ("primitives", {"mul": 1}),
            ("constants", {1: 1}),
            ("coefficients", {"weight": 1}),
            ("limits", {"nodes": 20}),
        ],
    )
    def test_words_are_refused(self, complaint, document, key, value):
        kind = document["strategy"]["kind"]
        assert complaint({**document, key: value}) == f"{key}: strategy {kind} builds no trees; leave it out"

    @pytest.mark.parametrize("document", [TUNED, TAYLOR])
    @pytest.mark.parametrize("key", ["tuning", "simplify"])
    def test_what_would_spoil_the_formulas_is_refused(self, complaint, document, key):
        del (left := dict(document))[key]
        assert complaint(left).startswith(f"{key}: strategy {document['strategy']['kind']} tunes ")

    @pytest.mark.parametrize("seeds", [[], ["boundary", "cross_entropy"], ["class_mean(mean(p * y * 0.5))"]])
    def test_there_must_be_something_to_tune(self, complaint, seeds):
        message = complaint({**TUNED, "seeds": seeds})
        assert message.startswith("seeds: tuned_catalogue needs a loss with parameters; those are focal, dice, ")

    def test_seeds_are_losses_here_too(self, complaint):
        assert "'tverski' is not a loss with an expression" in complaint({**TUNED, "seeds": ["tversky", "tverski"]})

    @pytest.mark.parametrize(
        ("changes", "complains"),
        [
            ({"root": "scalar"}, "wrap: only a space with root voxel"),
            ({"root": "scalar", "wrap": None}, "root: the formula of taylorglo is that of one voxel"),
            ({"wrap": None}, "wrap: root voxel needs a formula with one {}"),
            ({"wrap": "class_mean(mean({}))"}, "wrap: taylorglo maximises its formula; begin with a minus"),
            ({"wrap": "-class_mean(mean({} * p))"}, "wrap: only integers may stand beside {}"),
        ],
    )
    def test_taylorglo_needs_a_right_wrap(self, complaint, changes, complains):
        assert complaint({**TAYLOR, **changes}).startswith(complains)

    def test_a_metric_takes_no_wrap(self, complaint):
        document = {**TAYLOR, "root": "scalar", "strategy": {"kind": "auto_seg_loss"}}
        assert complaint(document).startswith("wrap: only a space with root voxel")

    @pytest.mark.parametrize(
        ("kind", "key", "value"),
        [
            ("tuned_catalogue", "spread", 0),
            ("tuned_catalogue", "random_share", 2),
            ("tuned_catalogue", "tournament_size", 0),
            ("taylorglo", "sigma", 0),
            ("taylorglo", "population", 3),
            ("taylorglo", "generations", 0),
            ("auto_seg_loss", "metric", "nsd"),
            ("auto_seg_loss", "control_points", 5),
        ],
    )
    def test_the_key_is_named(self, complaint, kind, key, value):
        assert complaint({**TUNED, "strategy": {"kind": kind, key: value}}).startswith(f"strategy.{key}: ")
