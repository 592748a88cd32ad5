"""Networks by name. A bundle names its network; it never brings code."""

from worker.nets.classes import NEGATIVE, POSITIVE
from worker.nets.volumetric import NETWORKS, arguments, build, features, log_odds

__all__ = ["NEGATIVE", "NETWORKS", "POSITIVE", "arguments", "build", "features", "log_odds"]
