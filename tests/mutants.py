"""Do the tests notice when the engine is wrong? It is changed in one place at a time: `python tests/mutants.py -h`.

A mutant is one comparison, sign, constant, condition or early return changed. Each runs, in a process of its own, the
examples of its module and the tests of its pieces, the instances of fuzz.py, and then all quick tests of the
algorithms, to the first failure, with a quarter of the usual random examples. (Slow tests would take two minutes for
each mutant that none notices; most of them search exhaustively, as fuzz.py does.) The tally has a row for each mutant
and is written as it goes, so that a run may be stopped at any time and goes on where it stopped. The reason beside a
survivor is written by hand.
"""

import argparse
import ast
import contextlib
import copy
import csv
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "subspace_match"
MODULES = ["geometry", "maximum", "minimal", "simple"]
OURS = {"subspace_match", "fuzz", "conftest", "strategies", *(path.stem for path in TESTS.glob("test_*.py"))}
QUIET = {"raise", "warn", "__repr__", "_repr_png_", "plot"}  # what is said, not what is computed
EXAMPLES = {module: f"test_docstrings.py::test_examples_run[algorithms.{module}]" for module in MODULES}
TESTS_OF = {"geometry": ["test_geometry.py", "test_arguments.py"], "maximum": ["test_geometry.py", "test_arguments.py"],
            "minimal": [], "simple": ["test_simple.py"]}
ALL_TESTS = [*EXAMPLES.values(), "test_geometry.py", "test_arguments.py", "test_engine.py", "test_simple.py",
             "test_algorithms.py"]
SLOW = ("exhaustive_search or all_matches or processes or tiny or wrong or depends_on_a_constant or hard_spectra "
        "or lemma_17 or three_gram_matrices or small_run or symmetries")

COMPARE = {ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
           ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
          ast.BitOr: ast.BitAnd, ast.FloorDiv: ast.Mult}


def changes(node):
    "The ways to change one node of the syntax tree: pairs of a name and a replacement."
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
        yield "comparison", ast.Compare(node.left, [COMPARE[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        yield "operator", ast.BinOp(node.left, BINARY[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield "and/or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert, ast.USub)):
        yield "sign", node.operand
    elif isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
        yield "operator", ast.AugAssign(node.target, BINARY[type(node.op)](), node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "constant", ast.Constant(node.value + 1)
        if node.value: yield "constant", ast.Constant(0)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.IfExp):
        yield "condition", node.body
        yield "condition", node.orelse
    elif isinstance(node, ast.If):
        yield "condition", ast.If(ast.Constant(False), node.body, node.orelse)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call", ast.Pass()


def is_quiet(node):
    "Does it only say something?"
    if isinstance(node, ast.Raise): return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func) in ("warnings.warn", "tell")
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in QUIET


def walk(node, function=""):
    "Every node that computes something, with the name of the function that it stands in."
    if is_quiet(node): return
    if isinstance(node, ast.FunctionDef): function = node.name
    yield node, function
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"): continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST): yield from walk(child, function)


def mutants(module):
    "For each mutant of a module: its function, its line, what was changed, and the source."
    tree, known = ast.parse((PACKAGE / "algorithms" / f"{module}.py").read_text()), Counter()
    for number, (node, function) in enumerate(walk(tree)):
        if not function: continue
        for kind, new in changes(node):
            mutated = copy.deepcopy(tree)
            target = next(n for i, (n, _) in enumerate(walk(mutated)) if i == number)
            old, new = ast.unparse(target).split("\n")[0], copy.deepcopy(new)
            shown = ast.unparse(ast.fix_missing_locations(new)).split("\n")[0]
            replace(mutated, target, new)
            change = f"{kind}: {old} -> {shown}"
            known[function, change] += 1
            if (again := known[function, change]) > 1: change += f" ({again})"   # the same words, at another place
            yield function, node.lineno, change, ast.unparse(ast.fix_missing_locations(mutated))


def replace(tree, old, new):
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            if value is old: setattr(node, name, new)
            elif isinstance(value, list) and any(item is old for item in value):
                setattr(node, name, [new if item is old else item for item in value])


def judge(module, source):
    "In a process of its own: the name of what noticed the mutant, or `survived`."
    name, path = f"subspace_match.algorithms.{module}", PACKAGE / "algorithms" / f"{module}.py"

    class Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
        def find_spec(self, wanted, *args):
            return importlib.machinery.ModuleSpec(wanted, self, origin=str(path)) if wanted == name else None
        def get_filename(self, wanted): return str(path)
        def get_data(self, wanted): return source.encode()
        def path_stats(self, wanted): raise OSError

    for known in [known for known in sys.modules if known.partition(".")[0] in OURS]: del sys.modules[known]
    sys.meta_path.insert(0, Mutated())
    try: import fuzz  # noqa: F401  before the tests' settings, which wrap what they see imported
    except BaseException as error: return f"import: {type(error).__name__}"
    first = [EXAMPLES[module], *TESTS_OF[module]]     # likely to notice, and quick
    then = [test for test in ALL_TESTS if test not in first]
    return noticed(first) or noticed_by_fuzz() or noticed(then) or "survived"


def noticed_by_fuzz():
    "The name of the kind of instances that fails, or of the error."
    import fuzz
    try:
        fuzz.BATCH = 12
        for k in range(2):
            for kind in fuzz.ALL_KINDS:
                tally = fuzz.run(kind, k, 3)
                if tally["errors"] or tally["differ_where_warned"] > 6: return f"fuzz {kind.__name__}"
    except BaseException as error: return f"fuzz: {type(error).__name__}"


def noticed(tests):
    "The name of the test that fails, if one does."
    class First:
        def pytest_configure(self):
            settings.register_profile("mutants", deadline=None, derandomize=True, max_examples=25,
                                      phases=[Phase.explicit, Phase.generate])
            settings.load_profile("mutants")
        def pytest_runtest_logreport(self, report):
            if report.failed: self.name = report.nodeid.split("::")[-1]
    first = First()
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", f"not ({SLOW})",
                 *(str(TESTS / test) for test in tests)]
    return getattr(first, "name", "tests") if pytest.main(arguments, plugins=[first]) else None


def outcome(module, source, seconds):
    "What `judge` says, or `too slow`."
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            said = judge(module, source)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    start = time.monotonic()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if used(child) > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "too slow"
        time.sleep(0.02 if time.monotonic() - start < 2 else 0.2)
    with os.fdopen(reading) as said: return said.read() or "crashed"


def used(child):
    "Processor seconds of a child, so that a busy machine fails nobody."
    try: fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError: return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    sys.path[:0] = [str(TESTS), str(PACKAGE.parent)]
    for name in ("fuzz", "shapes", *(test.partition(".")[0] for test in ALL_TESTS)):  # libraries, once for all
        importlib.import_module(name)
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--modules", nargs="+", default=MODULES, choices=MODULES)
    parser.add_argument("--every", type=int, default=1, help="only every so many of the mutants")
    parser.add_argument("--functions", nargs="*", help="only mutants inside these")
    parser.add_argument("--seconds", type=float, default=120, help="processor time after which it counts as noticed")
    parser.add_argument("--out", default="results/mutants/tally.csv", help="the tally; goes on from it")
    options = parser.parse_args()
    path = Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {tuple(row[k] for k in ("module", "function", "change")) for row in csv.DictReader(path.open())
             } if path.exists() else set()
    for module in options.modules:
        unchanged = (PACKAGE / "algorithms" / f"{module}.py").read_text()
        if (said := outcome(module, unchanged, options.seconds)) != "survived":
            sys.exit(f"{module}.py is noticed as it is, by {said}: what tests say of its mutants would mean nothing")
        for i, (function, line, change, source) in enumerate(mutants(module)):
            if i % options.every or (module, function, change) in known: continue
            if options.functions and function not in options.functions: continue
            row = {"module": module, "function": function, "line": line, "change": change,
                   "noticed_by": outcome(module, source, options.seconds), "reason": ""}
            known.add((module, function, change))
            new = not path.exists()
            with path.open("a", newline="") as out:
                writer = csv.DictWriter(out, row, lineterminator="\n")
                if new: writer.writeheader()
                writer.writerow(row)
            if row["noticed_by"] == "survived": print(f"{module}.py:{line} {function}: {change}", flush=True)


if __name__ == "__main__": main()
