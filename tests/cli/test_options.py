from __future__ import annotations

import warnings

import pytest
from rich.console import Console

from lossevo.cli.folders import preparing
from lossevo.cli.options import patch_cache_bytes
from lossevo.errors import LossevoError
from lossevo.training import DEFAULT_PATCH_CACHE_BYTES


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("2GiB", 2 * 2**30),
        ("500MiB", 500 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("64 kB", 64_000),
        ("2g", 2 * 10**9),
        ("1TiB", 2**40),
        (None, DEFAULT_PATCH_CACHE_BYTES),
    ],
)
def test_sizes(size: str | None, expected: int):
    assert patch_cache_bytes(size) == expected


@pytest.mark.parametrize(
    "size",
    [
        "",
        "0",
        "8",
        "0GiB",
        "1,5GiB",
        "1.GiB",
        "1/2GiB",
        "8GiB of it",
        "50GiB!",
        "GiB",
        "-1GiB",
        "2 gigs",
        "0x10MiB",
        "1e3MiB",
    ],
)
def test_what_is_no_size(size: str):
    with pytest.raises(LossevoError, match=r"--patch-cache: .* is no size; expected a number and a unit"):
        patch_cache_bytes(size)


def test_a_warning_while_a_cohort_is_prepared_is_one_line(capsys):
    show = warnings.showwarning
    with preparing(Console(quiet=True)):
        warnings.warn("the cache cannot be written", stacklevel=1)
    assert capsys.readouterr().err == "Note: the cache cannot be written\n"
    assert warnings.showwarning is show
