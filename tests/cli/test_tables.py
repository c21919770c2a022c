"""Tables for the terminal: what stands below a hall of fame."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from lossevo.cli.tables import hall_of_fame_table
from lossevo.experiment import Entry
from lossevo.experiment.origin import HandCrafted
from lossevo.expression import Expression
from lossevo.losses.definitions import Definition, formula_of, spec_of
from tests.networks import CROSS_ENTROPY


def entry(rank: int, definition: Definition, origin: str = "random") -> Entry:
    loss = spec_of(definition)
    formula = formula_of(definition)
    return Entry(rank, f"{rank:08}", formula, formula, "dice", 0.5, 0.1, 2, 75, 7.0, origin, True, 0.5, loss)


def below(*definitions: Definition, top: int = 10) -> list[str]:
    """The lines below the table of such a hall of fame, the last entry a hand-crafted one."""
    *found, last = enumerate(definitions, start=1)
    entries = [*(entry(rank, one) for rank, one in found), entry(*last, origin=HandCrafted("last"))]
    out = io.StringIO()
    Console(file=out, width=150).print(hall_of_fame_table(entries, top, Path("nowhere")))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return lines[max(index for index, line in enumerate(lines) if not line) + 1 :]


def formula(text: str) -> Expression:
    return Expression.parse(f"foreground_mean(mean({text}))")


def test_the_words_of_the_formulas_are_explained_and_no_others():
    lines = below(formula("softplus(m) - y * m"), formula("t * f * p"))
    assert [line.split("  ")[0] for line in lines] == ["y", "m", "softplus(a)", "μ[a]", "μᶠ[a]", "p", "f", "t"]
    assert any(line.startswith("m            logit margin: the logit minus the largest") for line in lines)


def test_of_a_network_its_inputs_are_explained():
    lines = below(CROSS_ENTROPY, top=1)
    assert [line.split()[0] for line in lines[:2]] == ["margin", "target"]
    assert "log-odds of the class against all others" in lines[0]


def test_what_is_not_shown_is_not_explained():
    hidden = formula("greater(d, 0)")
    assert not any(line.startswith("d ") for line in below(formula("p"), hidden, formula("y"), top=1))
    assert any(line.startswith("d ") for line in below(formula("p"), hidden, formula("y"), top=2))
