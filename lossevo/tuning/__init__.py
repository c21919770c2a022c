"""Tuning of a loss: its learning rate and its bounded parameters, on Ray Tune."""

from lossevo.tuning.course import Course
from lossevo.tuning.files import write_files
from lossevo.tuning.problem import Problem
from lossevo.tuning.result import TuningResult
from lossevo.tuning.run import Tuning, TuningConfig, read_config
from lossevo.tuning.settings import TuningSettings
from lossevo.tuning.space import Space
from lossevo.tuning.tuner import Workers, run_courses

__all__ = [
    "Course",
    "Problem",
    "Space",
    "Tuning",
    "TuningConfig",
    "TuningResult",
    "TuningSettings",
    "Workers",
    "read_config",
    "run_courses",
    "write_files",
]
