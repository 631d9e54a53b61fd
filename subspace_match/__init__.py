"""Do two neural networks learn the same representation? Subspace match: theory, exact fast algorithms, experiments."""
__version__ = "0.2.0"

from . import _moved
from .theory.match import Match, is_match, relative_distance
from .algorithms.geometry import Geometry
from .algorithms.maximum import Levels, match_levels, maximum_match
from .algorithms.minimal import minimal_match, minimal_matches
from .algorithms.simple import (
    TooManyMatches, all_minimal_matches, decompose, pair_matches, sample_simple_matches, simple_matches,
)
from .networks.layers import list_layers
from .networks.comparison import Comparison, compare

_moved.install()

__all__ = [
    "Comparison",
    "Geometry",
    "Levels",
    "Match",
    "TooManyMatches",
    "all_minimal_matches",
    "compare",
    "decompose",
    "is_match",
    "list_layers",
    "match_levels",
    "maximum_match",
    "minimal_match",
    "minimal_matches",
    "pair_matches",
    "relative_distance",
    "sample_simple_matches",
    "simple_matches",
]
