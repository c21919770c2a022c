from __future__ import annotations

from lossevo.markdown import escaped, table


def test_text_that_looks_like_markup_stays_text():
    assert escaped(r"a|b*c_d<e>\f") == r"a\|b\*c\_d\<e\>\\f"


def test_a_table_has_as_many_cells_as_columns_whatever_stands_in_them():
    lines = table([{"loss": "a|b", "Dice": "0.8"}, {"loss": "c", "Dice": "0.7"}]).splitlines()
    assert lines == ["| loss | Dice |", "| --- | --: |", r"| a\|b | 0.8 |", "| c | 0.7 |"]
