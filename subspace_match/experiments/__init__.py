"""What the paper measured, and what goes beyond it. Knows theory, algorithms and networks."""


def __getattr__(name: str) -> object:  # the names that `subspace_match.experiments` had while it was a single module
    import warnings
    from importlib import import_module
    pieces = import_module(".pieces", __name__)
    if name.startswith("__") or not hasattr(pieces, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is now {pieces.__name__}.{name}; the old path goes with version 0.3",
                  DeprecationWarning, stacklevel=2)
    return getattr(pieces, name)
