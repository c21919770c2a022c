"""Losses whose gradients point in different directions."""

from __future__ import annotations

DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"


def unlike(number: int) -> str:
    """One of six."""
    return ["class_mean(mean(square(p - y)))", "-class_sum(mean(y * logp))", DICE, "class_mean(mean(y / p - logp))",
            "20 * foreground_mean(mean(p * d))", "-class_mean(mean(p * y))"][number]  # fmt: skip
