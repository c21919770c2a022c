"""Meta-learning (ML3): a neural loss learned by gradient through the steps of the U-Nets that it trains."""

from lossevo.metalearning.progress import MetaProgress
from lossevo.metalearning.run import MetaRun
from lossevo.metalearning.settings import MetaConfig, MetaSettings

__all__ = ["MetaConfig", "MetaProgress", "MetaRun", "MetaSettings"]
