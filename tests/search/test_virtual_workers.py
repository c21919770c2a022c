from __future__ import annotations

import random

from lossevo.search.virtual_workers import VirtualWorkers


def test_equally_long_trainings_end_in_the_order_in_which_they_began():
    workers = VirtualWorkers(3)
    finished, ticket = [], 0
    while ticket < 50:
        while workers.free and ticket < 50:
            workers.start(ticket, 75)
            ticket += 1
        finished.append(workers.finish())
    while workers.running:
        finished.append(workers.finish())
    assert finished == list(range(50))


def test_a_long_training_holds_nobody_up():
    workers = VirtualWorkers(2)
    workers.start(0, 400)
    finished = []
    for ticket in range(1, 8):
        workers.start(ticket, 75)
        finished.append(workers.finish())
    assert finished == [1, 2, 3, 4, 5, 0, 6]


def test_it_is_the_order_of_a_simulation():
    """Against a slow loop over moments, with as many workers as fit."""
    generator = random.Random(1)
    costs = [generator.choice([3, 6, 12]) for _ in range(60)]
    workers, finished, ticket = VirtualWorkers(5), [], 0
    while len(finished) < 60:
        while workers.free and ticket < 60:
            workers.start(ticket, costs[ticket])
            ticket += 1
        finished.append(workers.finish())

    running: dict[int, int] = {}
    expected, begun, moment = [], 0, 0
    while len(expected) < 60:
        for done in sorted(t for t, end in running.items() if end == moment):
            expected.append(done)
            del running[done]
            if begun < 60:
                running[begun] = moment + costs[begun]
                begun += 1
        while len(running) < 5 and begun < 60:
            running[begun] = moment + costs[begun]
            begun += 1
        moment += 1
    assert finished == expected
