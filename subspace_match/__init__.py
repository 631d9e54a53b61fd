"""Do two neural networks learn the same representation? Subspace match: theory, exact fast algorithms, experiments."""
__version__ = "0.2.0"

from importlib import import_module
from typing import TYPE_CHECKING

from . import _moved
from .theory.match import Match, is_match, relative_distance
from .algorithms.geometry import Geometry
from .algorithms.maximum import Levels, match_levels, maximum_match
from .algorithms.minimal import minimal_match, minimal_matches
from .algorithms.simple import (
    TooManyMatches, all_minimal_matches, decompose, pair_matches, sample_simple_matches, simple_matches,
)
if TYPE_CHECKING:
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

# What compares networks needs pandas: it is imported when it is first asked for, so that worker processes, which only
# match, start sooner.
_LATER = {"list_layers": "layers", "Comparison": "comparison", "compare": "comparison"}

def __getattr__(name):
    if name in _LATER: return getattr(import_module(f".networks.{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

def __dir__(): return sorted({*globals(), *_LATER})
