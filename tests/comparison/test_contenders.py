from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from lossevo.comparison import SearchRecord, contenders_from
from lossevo.comparison.contenders import Contender
from lossevo.data import MERGED, SEPARATE
from lossevo.errors import LossevoError
from lossevo.experiment import Subjects, hall_of_fame
from lossevo.experiment.origin import HandCrafted, Tuned
from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of, from_spec, names
from lossevo.losses.definitions import spec_of
from lossevo.losses.expressions import expression_parameters
from lossevo.losses.neural import LearnedLoss
from tests.networks import CROSS_ENTROPY, random_network


@pytest.fixture
def run(balls, searched_run):
    return searched_run(balls(8))


class TestCatalogue:
    def test_in_the_order_given(self):
        contenders = contenders_from(["tversky", "dice"])
        assert [contender.name for contender in contenders] == ["tversky", "dice"]
        assert [contender.spec for contender in contenders] == [{"name": "tversky"}, {"name": "dice"}]
        assert not any(contender.evolved or contender.search for contender in contenders)

    def test_an_unknown_loss_names_the_nearest(self):
        with pytest.raises(LossevoError, match="did you mean 'tversky'"):
            contenders_from(["dice", "tverski"])

    def test_none_at_all(self):
        with pytest.raises(LossevoError, match="no loss to compare"):
            contenders_from()

    def test_twice(self):
        with pytest.raises(LossevoError, match="the same loss twice: 'dice'"):
            contenders_from(["dice", "focal", "dice"])


class TestHallOfFame:
    def test_by_rank_id_and_default(self, run):
        best = hall_of_fame.read(run)[0]
        by_rank, by_id, default = (contenders_from(hof=[f"{run}{which}"])[0] for which in (":1", f":{best.id}", ""))
        assert by_rank == default
        assert by_rank.name == "myo:1"
        assert by_id.name == f"myo:{best.id}"
        assert by_rank.spec == by_id.spec == best.loss
        assert by_rank.formula == best.unicode
        assert best.id in by_rank.origin

    def test_knows_what_its_search_has_seen(self, run):
        (contender,) = contenders_from(hof=[f"{run}:1"])
        assert contender.evolved
        assert contender.search is not None
        assert contender.search.subjects == Subjects.read(run)
        assert contender.search.labels == MERGED
        assert contender.search.spacing_mm == (4.0, 4.0, 4.0)

    def test_a_hand_crafted_entry_was_not_chosen_on_anybody(self, run):
        """The same contender as that of the catalogue, in all that counts; its run still tells the settings."""
        (contender,), (named,) = contenders_from(hof=[f"{run}:2"]), contenders_from(["cross_entropy"])
        assert contender.identity == named.identity
        assert contender.evolved is named.evolved is False
        assert contender.chosen_by is named.chosen_by is None
        assert contender.search is not None

    def test_an_evolved_entry_was(self, run):
        (contender,) = contenders_from(hof=[f"{run}:1"])
        assert contender.chosen_by == contender.search is not None

    @pytest.mark.parametrize("origin", [Tuned(("3fa9c1d2",)), HandCrafted("cross_entropy")], ids=str)
    def test_the_definition_decides_and_not_what_the_origin_says(self, run, origin):
        """Coefficients that a search has tuned make another loss; a loss of the literature may be found again."""
        tuned = Expression.parse("-1.1 * class_sum(mean(y * logp))")
        best, literature = hall_of_fame.read(run)
        entries = [replace(best, origin=origin, loss=spec_of(tuned)), replace(literature, origin=origin)]
        hall_of_fame.write(entries, run)
        assert [contender.evolved for contender in contenders_from(hof=[f"{run}:1", f"{run}:2"])] == [True, False]

    def test_a_contender_needs_its_run_no_more(self, run):
        (contender,) = contenders_from(hof=[f"{run}:1"])
        assert type(contender).model_validate_json(contender.model_dump_json()) == contender
        assert from_spec(contender.spec)

    def test_the_same_loss_by_rank_and_id(self, run):
        best = hall_of_fame.read(run)[0]
        with pytest.raises(LossevoError, match="the same loss twice"):
            contenders_from(hof=[f"{run}:1", f"{run}:{best.id}"])

    def test_runs_of_the_same_name_are_told_apart(self, balls, searched_run):
        cohort = balls(8)
        one = searched_run(cohort, "a/myo")
        two = searched_run(cohort, "b/myo", evolved="class_mean(mean(y / p - 3.0 * logp))")
        names = [contender.name for contender in contenders_from(hof=[f"{one}:1", f"{two}:1"])]
        assert names == [f"{one}:1", f"{two}:1"]

    @pytest.mark.parametrize("which", ["9", "ffffffff"])
    def test_no_such_entry(self, run, which):
        with pytest.raises(LossevoError, match=f"no loss '{which}' in the hall of fame; give a rank from 1 to 2"):
            contenders_from(hof=[f"{run}:{which}"])

    def test_not_a_run_folder(self, tmp_path):
        with pytest.raises(LossevoError, match="not a run folder"):
            contenders_from(hof=[f"{tmp_path}:1"])
        with pytest.raises(LossevoError, match="not a run folder"):
            contenders_from(hof=[f"{tmp_path}/nowhere"])

    def test_a_run_without_subjects_cannot_be_compared(self, run):
        (run / "subjects.json").write_text("{}", encoding="utf-8")
        with pytest.raises(LossevoError, match="leakage cannot be ruled out"):
            contenders_from(hof=[f"{run}:1"])


class TestTwins:
    """A loss of the catalogue and its expression are the same loss."""

    def test_of_the_catalogue_and_of_a_hall_of_fame(self, run):
        with pytest.raises(LossevoError, match=r"the same loss twice: 'cross_entropy'.* rank 2.*leave one out"):
            contenders_from(["dice", "cross_entropy"], hof=[f"{run}:2"])

    def test_every_loss_that_can_be_written_is_its_expression(self):
        for name in expressible_names():
            twin, written = (
                Contender(name=name, spec=spec, formula="", origin="")
                for spec in (
                    {"name": name, "parameters": expression_parameters(name)},
                    {"expression": expression_of(name).to_json()},
                )
            )
            assert twin.identity == written.identity, name

    @pytest.mark.parametrize(
        "spec", [{"name": "generalized_dice"}, {"name": "tversky", "parameters": {"w_fp": 0.5, "w_fn": 0.5}}]
    )
    def test_other_parameters_are_another_loss(self, spec):
        contender = Contender(name="it", spec=spec, formula="", origin="")
        assert contender.identity != expression_of(spec["name"]).hash

    def test_default_parameters_written_out_are_the_same_loss(self):
        defaults = Contender(name="it", spec={"name": "tversky"}, formula="", origin="")
        written = {"name": "tversky", "parameters": {"w_fp": 0.3, "w_fn": 0.7}}
        assert defaults.identity == Contender(name="it", spec=written, formula="", origin="").identity


class TestFile:
    def test_by_folder_or_file(self, write_loss):
        path = write_loss("my_loss")
        by_folder, by_file = (contenders_from(loss_files=[given])[0] for given in (path.parent, path))
        assert by_folder == by_file
        assert by_folder.name == "my_loss"
        assert by_folder.evolved
        assert by_folder.search is None
        assert from_spec(by_folder.spec)

    def test_knows_what_its_search_has_seen_if_the_file_says_so(self, write_loss, run):
        task = {"cohort": "balls", "labels": "separate", "spacing_mm": [4.0, 4.0, 4.0]}
        path = write_loss("my_loss", subjects=asdict(Subjects.read(run)), task=task)
        (contender,) = contenders_from(loss_files=[path])
        assert contender.search is not None
        assert contender.search.subjects == Subjects.read(run)
        assert contender.search.labels == SEPARATE
        assert contender.search.spacing_mm == (4.0, 4.0, 4.0)

    def test_a_loss_of_the_literature_stays_one_in_a_file(self, write_loss, run):
        metadata = SearchRecord.of_run(run, hall_of_fame.read(run)[1].id).to_metadata()
        path = write_loss("my_loss", str(expression_of("dice_focal")), **metadata)
        (contender,) = contenders_from(loss_files=[path])
        assert not contender.evolved
        assert contender.chosen_by is None
        assert contender.search is not None

    def test_subjects_that_cannot_be_read(self, write_loss):
        path = write_loss("my_loss", subjects={"train": ["a"]})
        with pytest.raises(LossevoError, match=r"loss.json: metadata.subjects.*leakage cannot be ruled out"):
            contenders_from(loss_files=[path])

    def test_a_name_of_the_catalogue_is_not_taken(self, write_loss):
        path = write_loss("dice")
        names = [contender.name for contender in contenders_from(["dice"], loss_files=[path])]
        assert names == ["dice", str(path)]

    @pytest.mark.parametrize("name", ["loss.py", "loss.pt2"])
    def test_no_file_is_executed(self, tmp_path, name):
        with pytest.raises(LossevoError, match=r"give the loss\.json"):
            contenders_from(loss_files=[tmp_path / name])

    def test_not_a_loss_file(self, tmp_path):
        (tmp_path / "loss.json").write_text(json.dumps({"format": "lossevo.loss/9"}), encoding="utf-8")
        with pytest.raises(LossevoError, match=r"lossevo\.loss/9"):
            contenders_from(loss_files=[tmp_path])
        with pytest.raises(LossevoError, match="cannot read"):
            contenders_from(loss_files=[tmp_path / "nowhere.json"])


class TestLearned:
    """A loss network takes part like an expression."""

    @pytest.fixture
    def cohort(self, balls):
        return balls(8)

    @pytest.fixture
    def learned(self, cohort, metalearned_run):
        return metalearned_run(cohort)

    def test_of_a_hall_of_fame(self, learned):
        network, distilled = contenders_from(hof=[f"{learned}:1", f"{learned}:2"])
        assert network.evolved
        assert network.spec == {"learned": CROSS_ENTROPY.to_json()}
        assert network.formula == str(CROSS_ENTROPY)
        assert network.identity == CROSS_ENTROPY.hash != distilled.identity
        assert isinstance(from_spec(network.spec), LearnedLoss)
        assert type(network).model_validate_json(network.model_dump_json()) == network

    def test_knows_what_its_meta_learning_has_seen(self, learned, cohort, searched_run):
        network, evolved = contenders_from(hof=[f"{learned}:1", f"{searched_run(cohort)}:2"])
        assert network.search == evolved.search
        assert network.search.subjects == Subjects.read(learned)

    @pytest.mark.parametrize("change", [{"labels": "all"}, {"cohort": 7}, {"task": None}, {"spacing_mm": [1]}])
    def test_a_damaged_run(self, learned, change):
        document = json.loads((learned / "run.json").read_text())
        (learned / "run.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(LossevoError, match=rf"run\.json: .*{next(iter(change))}"):
            contenders_from(hof=[f"{learned}:1"])

    def test_of_a_file(self, write_loss):
        path = write_loss("my_loss", random_network())
        (contender,) = contenders_from(loss_files=[path])
        assert contender.evolved
        assert contender.formula == str(random_network())
        assert from_spec(contender.spec).network == random_network()

    def test_the_same_in_a_run_and_a_file(self, learned, write_loss):
        path = write_loss("my_loss", CROSS_ENTROPY)
        with pytest.raises(LossevoError, match="the same loss twice"):
            contenders_from(hof=[f"{learned}:1"], loss_files=[path])


def test_all_is_the_whole_catalogue():
    contenders = contenders_from(["all"])
    assert tuple(contender.spec["name"] for contender in contenders) == names()
    with pytest.raises(LossevoError, match="the same loss twice"):
        contenders_from(["dice", "all"])
