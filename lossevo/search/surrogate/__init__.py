"""A surrogate of trainings: a Gaussian process over what losses do to a network's output."""

from lossevo.search.surrogate.map import SearchMap
from lossevo.search.surrogate.probes import Probes
from lossevo.search.surrogate.surrogate import Prediction, Surrogate

__all__ = ["Prediction", "Probes", "SearchMap", "Surrogate"]
