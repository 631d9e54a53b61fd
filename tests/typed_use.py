"""Uses of the library that mypy must accept, and mistakes it must refuse: an ignore that is not needed is an error."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from subspace_match import Comparison, Geometry, Levels, Match, compare, match_levels, maximum_match, minimal_match


def two_matrices(x: np.ndarray, y: torch.Tensor) -> tuple[Match, Levels, Match | None]:
    geometry: Geometry = Geometry.from_vectors(x, x)
    return maximum_match(x, x, 0.3), match_levels(geometry), minimal_match(y, y, 0.3, ("x", 0))


def networks(a: nn.Module, b: nn.Module, loader: DataLoader) -> Comparison:
    compare({"a": a, "b": b}, loader, layers="relu")
    compare([a, b], loader, layers=["relu", nn.Tanh], layer_pairs="all", samples="inputs")
    compare([a, b], loader, layer_pairs="al")   # type: ignore[arg-type]
    compare([a, b], loader, samples="input")    # type: ignore[arg-type]
    compare("networks", loader)                 # type: ignore[arg-type]
    compare([a, b], 3)                          # type: ignore[arg-type]
    return compare([a, b], loader)


def stored_activations(x: np.ndarray, y: torch.Tensor) -> Comparison:
    compare([{"layer": x}, {"layer": x}])
    return compare({"a": {"layer": x}, "b": {"layer": y}})


def a_curve(levels: Levels, several: np.ndarray) -> tuple[float, np.ndarray, float]:
    levels.similarity("0.3")                    # type: ignore[arg-type]
    levels.similarity(several).is_integer()     # type: ignore[attr-defined]
    levels.plot().set_title("similarity")
    return levels.similarity(0.3), levels.similarity([0.1, 0.3]), levels.area
