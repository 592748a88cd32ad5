"""Networks by name. A bundle names its network; it never brings code."""

from worker.nets.catalogue import PLANAR_NETWORKS, build_planar, resolved
from worker.nets.classes import NEGATIVE, POSITIVE
from worker.nets.imagenet import BadWeights, load_imagenet
from worker.nets.planar import Planar
from worker.nets.volumetric import NETWORKS, arguments, build, features, log_odds

__all__ = [
    "NEGATIVE",
    "NETWORKS",
    "PLANAR_NETWORKS",
    "POSITIVE",
    "BadWeights",
    "Planar",
    "arguments",
    "build",
    "build_planar",
    "features",
    "load_imagenet",
    "log_odds",
    "resolved",
]
