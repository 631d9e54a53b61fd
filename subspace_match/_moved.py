"""Module paths of version 0.1, which lead to their new places until version 0.3 and say so."""
import importlib
import importlib.abc
import importlib.util
import sys
import warnings

MOVED = {
    "theory": ("match", "reference", "counterexamples"),
    "algorithms": ("geometry", "maximum", "minimal", "simple"),
    "networks": ("files", "data", "models", "training", "activations", "comparison", "figures", "measures"),
    "experiments": ("benchmark", "what_match_measures"),
}
PACKAGE = __name__.rpartition(".")[0]
PLACES = {f"{PACKAGE}.{name}": f"{PACKAGE}.{folder}.{name}" for folder, names in MOVED.items() for name in names}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Finds a module under its old path: the same module, not a copy, after a `DeprecationWarning`."

    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname in PLACES else None

    def create_module(self, spec):
        warnings.warn(f"{spec.name} is now {PLACES[spec.name]}; the old path goes with version 0.3",
                      DeprecationWarning, stacklevel=2)  # the frames of the import machinery do not count
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = importlib.import_module(PLACES[module.__name__])


def install():
    "Let Python find the old paths; once."
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path): sys.meta_path.append(_Finder())
