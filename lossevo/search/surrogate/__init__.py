"""A surrogate of trainings: a Gaussian process over what losses do to a network's output."""

from lossevo.search.surrogate.map import SearchMap
from lossevo.search.surrogate.preselection import Features, Preselection
from lossevo.search.surrogate.probes import Probes
from lossevo.search.surrogate.surrogate import Prediction, Surrogate

__all__ = ["Features", "Prediction", "Preselection", "Probes", "SearchMap", "Surrogate"]
