from __future__ import annotations

from lossevo.cluster.retries import BLAMED_AFTER, SUSPECT_AFTER, Record, Retries, Verdict


def lose(retries: Retries, record: Record, times: int, *, with_node: bool = False) -> list[Verdict]:
    return [retries.lost(record, with_node=with_node) for _ in range(times)]


def test_a_job_that_loses_fresh_workers_alone_is_blamed():
    record = Record()
    verdicts = lose(Retries(workers=2), record, SUSPECT_AFTER + BLAMED_AFTER)
    assert verdicts == [Verdict.AGAIN] * (SUSPECT_AFTER + BLAMED_AFTER - 1) + [Verdict.BLAMED]


def test_it_runs_alone_once_it_is_a_suspect():
    retries, record = Retries(workers=2), Record()
    lose(retries, record, SUSPECT_AFTER - 1)
    assert not record.alone
    lose(retries, record, 1)
    assert record.alone


def test_the_loss_of_nodes_is_never_held_against_it():
    retries, record = Retries(workers=1000), Record()
    assert set(lose(retries, record, 50, with_node=True)) == {Verdict.AGAIN}


def test_losses_without_one_job_done_in_between_mean_that_the_cluster_is_sick():
    retries = Retries(workers=2)
    records = [Record() for _ in range(40)]
    verdicts = [retries.lost(record, with_node=False) for record in records]
    assert verdicts[0] is Verdict.AGAIN
    assert verdicts[-1] is Verdict.SICK
    assert Verdict.BLAMED not in verdicts


def test_a_job_done_shows_that_the_cluster_works():
    retries = Retries(workers=2)
    for _ in range(40):
        assert retries.lost(Record(), with_node=False) is Verdict.AGAIN
        retries.answered()


def test_memory_that_others_may_have_taken():
    record = Record()
    retries = Retries(workers=2)
    assert retries.out_of_memory(record) is Verdict.AGAIN
    assert record.alone
    assert retries.out_of_memory(record) is Verdict.BLAMED
