from __future__ import annotations

import csv
import json
import math

import pytest

from lossevo.errors import LossevoError
from lossevo.experiment import hall_of_fame
from lossevo.experiment.candidate import Candidate, standard_error
from lossevo.experiment.hall_of_fame import EVOLVED, Entry, find, rank, read, write
from lossevo.experiment.origin import Evolved, HandCrafted, MetaLearned, origin_in
from lossevo.expression import Expression
from lossevo.losses import from_spec
from lossevo.losses.neural import LearnedLoss
from tests.networks import CROSS_ENTROPY

REQUIRED = {"rank", "id", "formula", "score", "score_se", "seeds", "steps", "complexity", "origin"}


def candidate(number: int, *scores: float, confirmed: tuple[float, ...] = (), literature: bool = False) -> Candidate:
    origin = HandCrafted(f"loss_{number}") if literature else Evolved("crossover", ("aa", "bb"))
    return Candidate(
        Expression.parse(f"class_mean(mean(p * y * {number}.5)) + max(0.25, foreground_mean(sum(y)))"),
        origin,
        number,
        {75: dict(enumerate(scores))} if scores else {},
        {75: dict(enumerate(confirmed, start=500))} if confirmed else {},
    )


@pytest.fixture
def candidates() -> list[Candidate]:
    return [
        candidate(0, 0.70, literature=True, confirmed=(0.69, 0.70, 0.71)),
        candidate(1, 0.60, literature=True),
        candidate(2, 0.90, 0.80),
        candidate(3, 0.75, confirmed=(0.72, 0.74, 0.73)),
        candidate(4, 0.99, confirmed=(0.5, 0.6)),
        candidate(5),
    ]


class TestRanking:
    def test_confirmed_losses_come_first_and_each_part_is_in_order(self, candidates):
        entries = rank(candidates, confirmation_seeds=3)
        assert [entry.rank for entry in entries] == [1, 2, 3, 4, 5]
        order = [3, 0, 4, 2, 1]
        assert [entry.id for entry in entries] == [candidates[number].id for number in order]
        assert [entry.confirmed for entry in entries] == [True, True, False, False, False]

    def test_a_confirmed_score_is_free_of_what_it_was_selected_on(self, candidates):
        first = rank(candidates, confirmation_seeds=3)[0]
        assert (first.score, first.seeds, first.selection_score) == (pytest.approx(0.73), 3, 0.75)
        assert first.score_se == pytest.approx(0.01 / math.sqrt(3))

    def test_one_seed_has_no_standard_error(self, candidates):
        entries = {entry.id: entry for entry in rank(candidates, confirmation_seeds=3)}
        assert entries[candidates[1].id].score_se is None
        assert entries[candidates[2].id].score_se == pytest.approx(0.05)
        assert math.isnan(standard_error([0.5]))

    def test_a_candidate_without_a_score_is_not_in_it(self, candidates):
        assert candidates[5].id not in {entry.id for entry in rank(candidates, 3)}
        assert rank([], 3) == []

    def test_the_best_evolved_and_all_hand_crafted(self):
        evolved = [candidate(number, 0.5 + number / 1000) for number in range(EVOLVED + 10)]
        literature = [candidate(100 + number, 0.01, literature=True) for number in range(3)]
        entries = rank([*evolved, *literature], 3)
        assert len(entries) == EVOLVED + 3
        assert sum(str(entry.origin).startswith("hand-crafted: loss_10") for entry in entries) == 3
        assert min(entry.score for entry in entries[:EVOLVED]) == pytest.approx(0.51)

    def test_of_equals_the_older_comes_first(self):
        twins = [candidate(2, 0.5), candidate(1, 0.5)]
        assert [entry.id for entry in rank(twins, 3)] == [twins[1].id, twins[0].id]


class TestLengths:
    def test_the_longer_trained_come_first_and_the_longest_count(self):
        short, long, failed = candidate(0, 0.9), candidate(1, 0.5), candidate(2, 0.8)
        long.record(150, 0, 0.6)
        failed.record(150, 0, 0.1)
        entries = rank([short, long, failed], 3)
        assert [(entry.id, entry.steps, entry.score) for entry in entries] == [
            (long.id, 150, 0.6),
            (failed.id, 150, 0.1),
            (short.id, 75, 0.9),
        ]

    def test_a_confirmation_at_the_most_steps_counts(self):
        one = candidate(0, 0.9, confirmed=(0.5, 0.5))
        for seed, score in enumerate((0.7, 0.8), start=500):
            one.record(150, seed, score, confirms=True)
        one.record(300, 500, 0.9, confirms=True)
        (entry,) = rank([one], 2)
        assert (entry.confirmed, entry.steps, entry.seeds) == (True, 150, 2)
        assert entry.score == pytest.approx(0.75)


class TestFiles:
    def test_json_is_a_list_of_objects(self, candidates, tmp_path):
        entries = rank(candidates, 3)
        write(entries, tmp_path)
        documents = json.loads((tmp_path / "hall_of_fame.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
        assert [document["rank"] for document in documents] == [1, 2, 3, 4, 5]
        for document, entry in zip(documents, entries, strict=True):
            assert document.keys() >= REQUIRED
            assert (
                Expression.parse(document["formula"])
                == Expression.from_json(document["loss"]["expression"])
                == entry.expression
            )

    def test_csv_holds_the_same(self, candidates, tmp_path):
        write(rank(candidates, 3), tmp_path)
        documents = json.loads((tmp_path / "hall_of_fame.json").read_text(encoding="utf-8"))
        with (tmp_path / "hall_of_fame.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == len(documents)
        for row, document in zip(rows, documents, strict=True):
            assert row.keys() >= REQUIRED
            for key, text in row.items():
                value = str(origin_in(document[key])) if key == "origin" else document[key]
                assert text == ("" if value is None else str(value))

    def test_what_is_written_is_read(self, candidates, tmp_path):
        entries = rank(candidates, 3)
        write(entries, tmp_path)
        assert read(tmp_path) == entries
        assert all(isinstance(entry, Entry) for entry in read(tmp_path))

    def test_an_empty_one(self, tmp_path):
        write([], tmp_path)
        assert read(tmp_path) == []

    def test_files_are_replaced_as_a_whole(self, candidates, tmp_path):
        write(rank(candidates, 3), tmp_path)
        with (tmp_path / "hall_of_fame.json").open(encoding="utf-8") as opened_before:
            write(rank(candidates[:2], 3), tmp_path)
            assert len(json.load(opened_before)) == 5
        assert len(read(tmp_path)) == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["hall_of_fame.csv", "hall_of_fame.json"]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(LossevoError, match=r"no hall_of_fame\.json there; give the folder of a run"):
            read(tmp_path)

    def test_a_run_that_has_not_got_that_far(self, tmp_path):
        (tmp_path / "run.json").write_text("{}")
        with pytest.raises(LossevoError, match=r"no training has ended yet.*lossevo search --resume"):
            read(tmp_path)
        (tmp_path / "run.json").write_text('{"format": "lossevo.metalearning/3"}')
        with pytest.raises(LossevoError, match=r"no training has ended yet.*lossevo metalearn --resume"):
            read(tmp_path)

    @pytest.mark.parametrize("content", ["", "{", "[{}]", '[{"rank": 1}]', "7", '{"rank": 1}', "[1]", "\xff"])
    def test_a_damaged_one(self, tmp_path, content):
        (tmp_path / "hall_of_fame.json").write_text(content, encoding="latin-1")
        with pytest.raises(LossevoError, match=r"hall_of_fame\.json: damaged .*lossevo search --resume"):
            read(tmp_path)

    def test_a_folder_that_cannot_be_written(self, tmp_path, candidates):
        with pytest.raises(LossevoError, match=r"hall_of_fame\.json: cannot be written"):
            write(rank(candidates, 3), tmp_path / "absent")


def learned(place: int = 1) -> Entry:
    return Entry(
        rank=place,
        id=CROSS_ENTROPY.hash[:8],
        formula=str(CROSS_ENTROPY),
        unicode=str(CROSS_ENTROPY),
        objective="dice",
        score=0.8,
        score_se=0.01,
        seeds=3,
        steps=75,
        complexity=CROSS_ENTROPY.weight_count,
        origin=MetaLearned(200),
        confirmed=True,
        selection_score=0.8,
        loss={"learned": CROSS_ENTROPY.to_json()},
    )


class TestLearned:
    """Beside expressions a hall of fame may hold loss networks."""

    def test_each_is_read_as_what_it_is(self, candidates, tmp_path):
        entries = [learned(), *rank(candidates[:2], 3)]
        write(entries, tmp_path)
        network, *expressions = read(tmp_path)
        assert network == entries[0]
        assert network.definition == CROSS_ENTROPY
        assert network.loss == {"learned": CROSS_ENTROPY.to_json()}
        assert isinstance(from_spec(network.loss), LearnedLoss)
        for entry in expressions:
            assert entry.definition == entry.expression
            assert entry.loss == {"expression": entry.definition.to_json()}

    def test_its_row_in_the_table(self, tmp_path):
        write([learned()], tmp_path)
        with (tmp_path / "hall_of_fame.csv").open(newline="", encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream)
        assert row["formula"] == "mean(softplus(network(margin, target))), 2-4-1 relu without biases"
        assert row["complexity"] == "12"

    def test_where_a_formula_is_needed_it_says_that_there_is_none(self):
        with pytest.raises(LossevoError, match=r"is a loss network and has no formula; a 'distilled' loss"):
            learned().expression  # noqa: B018

    @pytest.mark.parametrize("loss", [{"learned": {}}, {"learned": {}, "expression": {}}, {}])
    def test_what_is_neither(self, loss):
        damaged = Entry(**{**{name: getattr(learned(), name) for name in Entry.__slots__}, "loss": loss})
        with pytest.raises(LossevoError, match=r"not a loss network|expected one of expression and learned"):
            damaged.definition  # noqa: B018


class TestFind:
    @pytest.fixture
    def entries(self, candidates):
        return rank(candidates, 3)

    def test_by_rank(self, entries, tmp_path):
        assert find(entries, "2", tmp_path) is entries[1]

    def test_by_id_and_its_beginning(self, entries, tmp_path):
        for entry in entries:
            assert find(entries, entry.id, tmp_path) is entry
            assert find(entries, entry.id[:7], tmp_path) is entry

    @pytest.mark.parametrize("unknown", ["0", "6", "999", "xyz", "-1", "1.0", ""])
    def test_unknown(self, entries, tmp_path, unknown):
        with pytest.raises(LossevoError, match=r"(no loss|several losses) '.*' .*a rank from 1 to 5 or an id"):
            find(entries, unknown, tmp_path)

    def test_an_id_of_digits_is_no_rank(self, entries, tmp_path):
        assert hall_of_fame.find([*entries[:1], renamed(entries[1], "12345678")], "12345678", tmp_path).rank == 2


def renamed(entry: Entry, id_: str) -> Entry:
    return Entry(**{**{name: getattr(entry, name) for name in Entry.__slots__}, "id": id_})
