"""Genetic programming on DEAP: typed trees, variation, selection. DEAP is used here and nowhere else."""

from lossevo.search.genetic.selection import Individual, select
from lossevo.search.genetic.trees import Trees, to_node
from lossevo.search.genetic.variation import Variation

__all__ = ["Individual", "Trees", "Variation", "select", "to_node"]
