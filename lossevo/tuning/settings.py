"""How a loss is tuned: what, how often it is trained, and how its best values are confirmed."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lossevo.tuning.space import What

MAX_TRIALS: Final = 1000
"""Ray Tune's controller looks at all trials again and again (Ray issue 64231), so they are bounded."""


def _each_once(what: tuple[What, ...]) -> tuple[What, ...]:
    if len({*what}) < len(what):
        raise ValueError("something is given twice")
    return what


class TuningSettings(BaseModel):
    """Decides the course of a tuning, together with a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    what: Annotated[tuple[What, ...], Field(min_length=1), AfterValidator(_each_once)] = ("lr", "parameters")
    trials: int = Field(40, ge=1, le=MAX_TRIALS, description="values tried, the untuned ones first")
    finalists: int = Field(3, ge=1, le=100, description="values that are confirmed, beside the untuned ones")
    seeds: int = Field(3, ge=1, le=100, description="trainings that confirm each of them")
    window: int = Field(8, ge=1, le=MAX_TRIALS, description="values proposed at once")
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict, description="narrower bounds by name")
