from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.comparison.contenders import Contender, SearchRecord
from lossevo.comparison.leakage import plan_folds, seen_subjects
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, Subjects

HERE = CohortSource(path=Path("cohort"))
ELSEWHERE = CohortSource(path=Path("elsewhere"))


def hashes_of(names: str, prefix: str = "") -> dict[str, str]:
    """One subject per letter; its content is the letter, whatever the prefix of its name."""
    return {prefix + name: f"content of {name}" for name in names}


def record(train: str = "", validation: str = "", untouched: str = "", **given) -> SearchRecord:
    hashes = hashes_of(train + validation + untouched)
    subjects = Subjects(tuple(train), tuple(validation), tuple(untouched), given.pop("hashes", hashes))
    return SearchRecord(subjects=subjects, **given)


def loss(name: str = "dice", search: SearchRecord | None = None) -> Contender:
    return Contender(name=name, spec={"name": name}, formula="", origin=name, evolved=search is not None, search=search)


def folds_of(contenders, hashes, **given):
    return plan_folds(contenders, hashes, **{"cohort": HERE, "folds": 2, "seed": 0, **given})


class TestSeen:
    def test_trained_and_validated_on_are_seen_untouched_are_not(self):
        search = record("ab", "c", "de", cohort=HERE)
        assert seen_subjects(search, hashes_of("abcde"), cohort=HERE) == {"a", "b", "c"}

    def test_content_is_recognised_under_other_names(self):
        renamed = {"x1": "content of a", "x2": "content of d", "x3": "content of new"}
        assert seen_subjects(record("ab", "c", "de"), renamed, cohort=ELSEWHERE) == {"x1"}

    def test_one_image_of_several_is_enough(self):
        search = record(
            "ab", "c", "de", hashes={"a": "t1 of a,t2 of a", "b": "t1 of b,t2 of b", "d": "t1 of d,t2 of d"}
        )
        part = {"x": "t2 of a", "y": "t2 of d", "z": "t2 of new", "w": "new,t1 of b"}
        assert seen_subjects(search, part, cohort=ELSEWHERE) == {"x", "w"}

    def test_a_label_is_known_under_other_names_and_intensities(self):
        search = record("ab", "c", "d", hashes={name: f"image of {name},label:{name}" for name in "abcd"})
        rescaled = {f"x{name}": f"rescaled image of {name},label:{name}" for name in "abcde"}
        assert seen_subjects(search, rescaled, cohort=ELSEWHERE) == {"xa", "xb", "xc"}
        assert seen_subjects(search, {"x": "t1 of a,t2 of a,label:of t1,label:a"}, cohort=ELSEWHERE) == {"x"}

    def test_an_image_on_record_outweighs_a_label_that_several_have(self):
        """As where a template was laid over everybody."""
        hashes = {name: f"content of {name},label:template" for name in "abcd"}
        assert seen_subjects(record("ab", "", "cd", hashes=hashes), hashes, cohort=HERE) == {"a", "b"}
        assert seen_subjects(record("ab", "", "cd", hashes=hashes), {"x": "new,label:template"}, cohort=HERE) == {"x"}

    def test_records_without_labels_protect_by_what_they_have(self):
        old = record("a", "b", "c", hashes={"a": "content of a", "c": hashlib.sha256(b"12").hexdigest()})
        new = {"x": "content of a,label:a", "y": "1,2,label:c", "b": "other,label:b", "z": "new,label:z"}
        assert seen_subjects(old, new, cohort=ELSEWHERE) == {"x", "b"}
        assert seen_subjects(record("c", hashes=old.subjects.hashes), new, cohort=ELSEWHERE) == {"y"}

    def test_who_shares_an_image_with_somebody_seen_is_seen(self):
        search = record("a", "", "d", hashes={"a": "same,t2 of a", "d": "same,t2 of d"})
        assert seen_subjects(search, {"x": "same"}, cohort=ELSEWHERE) == {"x"}

    def test_one_hash_over_all_images_as_older_runs_recorded_it(self):
        def digest(*images: str) -> str:
            return hashlib.sha256("".join(images).encode()).hexdigest()

        search = record("a", "b", "d", hashes={"a": digest("1", "2"), "b": digest("3"), "d": digest("4")})
        assert seen_subjects(search, {"x": "1,2", "y": "3", "z": "4"}, cohort=ELSEWHERE) == {"x", "y"}

    def test_names_that_were_swapped_do_not_deceive(self):
        swapped = {"a": "content of d", "d": "content of a"}
        assert seen_subjects(record("ab", "c", "de", cohort=HERE), swapped, cohort=HERE) == {"d"}

    def test_another_cohort_with_the_same_names_was_not_seen(self):
        others = {name: f"other content of {name}" for name in "abcde"}
        assert seen_subjects(record("ab", "c", "de", cohort=HERE), others, cohort=ELSEWHERE) == set()

    def test_another_list_or_sub_folder_of_the_same_data_is_the_same_cohort(self):
        others = {name: f"the other contrast of {name}" for name in "abcde"}
        for one, other in (("data/t1.csv", "data/t2.csv"), ("data", "data/t2.csv"), ("data/X", "data")):
            searched, tested = (CohortSource(path=Path(path)) for path in (one, other))
            assert seen_subjects(record("ab", "c", "de", cohort=searched), others, cohort=tested) == {"a", "b", "c"}

    def test_changed_content_in_the_same_folder_is_known_by_name(self):
        changed = {name: f"content of {name}, re-saved" for name in "abcde"}
        assert seen_subjects(record("ab", "c", "de", cohort=HERE), changed, cohort=HERE) == {"a", "b", "c"}

    def test_changed_content_in_a_copy_in_which_others_are_recognised_is_known_by_name(self):
        copy = {**hashes_of("bd"), "a": "content of a, re-saved", "e": "content of e, re-saved"}
        assert seen_subjects(record("ab", "c", "de", cohort=HERE), copy, cohort=ELSEWHERE) == {"a", "b"}

    def test_a_name_without_a_recorded_hash_counts(self):
        search = record("ab", "c", "de", hashes={"b": "content of b"})
        others = {name: f"other content of {name}" for name in "abcde"}
        assert seen_subjects(search, others, cohort=ELSEWHERE) == {"a", "c"}

    def test_a_phantom_drawn_at_another_spacing_is_the_same_phantom(self):
        search = record("ab", "c", "de", cohort=CohortSource())
        redrawn = {name: f"{name} at 4 mm" for name in "abcde"}
        assert seen_subjects(search, redrawn, cohort=CohortSource(phantom_cases=5)) == {"a", "b", "c"}
        assert seen_subjects(search, redrawn, cohort=CohortSource(phantom_seed=1)) == set()


class TestPlan:
    def test_without_evolved_losses_all_subjects_are_tested(self):
        plan = folds_of([loss(), loss("focal")], hashes_of("abcdefg"), folds=3)
        assert plan.tested == tuple("abcdefg")
        assert plan.train_only == ()
        assert plan.leaked == {}

    def test_only_subjects_that_no_search_has_seen_are_tested(self):
        evolved = [loss("one", record("ab", "c", "defgh")), loss("two", record("de", "a", "bcfgh"))]
        plan = folds_of([loss(), *evolved], hashes_of("abcdefgh"))
        assert plan.tested == tuple("fgh")
        assert plan.train_only == tuple("abcde")
        assert plan.leaked == {}

    def test_in_a_renamed_copy_too(self):
        evolved = loss("one", record("ab", "c", "def", cohort=HERE))
        plan = folds_of([evolved], hashes_of("abcdef", prefix="copy_"), cohort=ELSEWHERE)
        assert plan.tested == ("copy_d", "copy_e", "copy_f")

    def test_all_of_a_fresh_cohort_is_tested(self):
        plan = folds_of([loss("one", record("ab", "c", "d"))], hashes_of("stuvw"), cohort=ELSEWHERE)
        assert plan.tested == tuple("stuvw")

    @given(count=st.integers(2, 40), folds=st.integers(2, 6), seed=st.integers(0, 99), seen=st.integers(0, 40))
    def test_folds_partition_the_tested_and_never_train_on_them(self, count, folds, seed, seen):
        names = [f"s{n:02d}" for n in range(count)]
        hashes = {name: f"content of {name}" for name in names}
        touched = names[: min(seen, count - folds)] if count >= folds else []
        search = SearchRecord(subjects=Subjects(tuple(touched), (), (), hashes))
        if count < folds:
            with pytest.raises(LossevoError, match="use fewer folds"):
                folds_of([loss("one", search)], hashes, folds=folds, seed=seed)
            return
        plan = folds_of([loss("one", search)], hashes, folds=folds, seed=seed)
        assert sorted(plan.tested) == sorted(set(names) - set(touched))
        assert sum(len(test) for test in plan.test) == len(plan.tested)
        assert max(map(len, plan.test)) - min(map(len, plan.test)) <= 1
        for fold, test in enumerate(plan.test):
            assert set(test).isdisjoint(touched)
            assert set(plan.train(fold)) == set(names) - set(test)

    def test_the_seed_decides_the_folds(self):
        hashes = hashes_of("abcdefghij")
        assert folds_of([loss()], hashes, seed=1) == folds_of([loss()], hashes, seed=1)
        assert folds_of([loss()], hashes, seed=1) != folds_of([loss()], hashes, seed=2)


class TestRefused:
    def test_too_few_subjects(self):
        with pytest.raises(LossevoError, match="3 folds need at least 3 subjects, cohort has 2"):
            folds_of([loss()], hashes_of("ab"), folds=3)

    def test_too_few_untouched(self):
        evolved = loss("myo:1", record("abc", "d", "ef", cohort=HERE))
        with pytest.raises(LossevoError) as refused:
            folds_of([evolved], hashes_of("abcdef"), folds=3)
        message = str(refused.value)
        for part in ("3 folds", "6 subjects", "2 are untouched", "myo:1 has seen 4", "fewer folds", "--allow-leakage"):
            assert part in message

    def test_fewer_folds_are_not_advised_where_they_would_not_help(self):
        evolved = loss("myo:1", record("abc", "d", "e", cohort=HERE))
        with pytest.raises(LossevoError) as refused:
            folds_of([evolved], hashes_of("abcde"))
        assert "fewer folds" not in str(refused.value)

    def test_testing_on_seen_subjects(self):
        evolved = loss("myo:1", record("abc", "d", "efgh", cohort=HERE))
        with pytest.raises(LossevoError) as refused:
            folds_of([loss(), evolved], hashes_of("abcdefgh"), test_on="all")
        for part in ("all 8 subjects", "myo:1 has seen 4", "the 4 untouched", "--allow-leakage"):
            assert part in str(refused.value)


class TestHandCrafted:
    """A loss of the literature that was taken from a hall of fame leaks nothing: it is as it was published."""

    def test_everybody_may_be_tested(self):
        taken = loss("myo:3", record("abc", "d", "efgh", cohort=HERE)).model_copy(update={"evolved": False})
        for test_on in ("untouched", "all"):
            plan = folds_of([taken], hashes_of("abcdefgh"), test_on=test_on)
            assert plan.tested == tuple("abcdefgh")
            assert plan.leaked == {}

    def test_it_is_not_marked_beside_an_evolved_loss_that_is(self):
        evolved = loss("myo:1", record("abc", "d", "efgh", cohort=HERE))
        taken = evolved.model_copy(update={"name": "myo:3", "evolved": False})
        plan = folds_of([evolved, taken], hashes_of("abcdefgh"), test_on="all", allow_leakage=True)
        assert plan.leaked == {"myo:1": tuple("abcd")}


class TestAllowed:
    def test_testing_on_all_of_a_cohort_that_no_search_has_seen_is_no_leakage(self):
        plan = folds_of([loss("one", record("ab", "c", "d"))], hashes_of("stuvw"), cohort=ELSEWHERE, test_on="all")
        assert plan.leaked == {}

    def test_leakage_is_put_on_record_for_the_loss_that_has_it(self):
        evolved = loss("myo:1", record("abc", "d", "efgh", cohort=HERE))
        plan = folds_of([loss(), evolved], hashes_of("abcdefgh"), test_on="all", allow_leakage=True)
        assert plan.tested == tuple("abcdefgh")
        assert plan.leaked == {"myo:1": tuple("abcd")}

    def test_with_too_few_untouched_subjects_all_are_tested(self):
        evolved = loss("myo:1", record("abc", "d", "e", cohort=HERE))
        plan = folds_of([evolved], hashes_of("abcde"), folds=3, allow_leakage=True)
        assert plan.tested == tuple("abcde")
        assert plan.leaked == {"myo:1": tuple("abcd")}

    def test_permission_alone_leaks_nothing(self):
        evolved = loss("myo:1", record("abc", "d", "efgh", cohort=HERE))
        plan = folds_of([evolved], hashes_of("abcdefgh"), allow_leakage=True)
        assert plan.tested == tuple("efgh")
        assert plan.leaked == {}
