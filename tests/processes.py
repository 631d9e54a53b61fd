"""Processes for tests, forked from one that has imported the large libraries; begun anew where a fork is no safe copy.

`import torch` takes seconds, and is the same in all of them. What a test says of a fresh interpreter (what it imports,
how it hashes) needs `subprocess`.
"""
import multiprocessing
import os
import sys

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    CONTEXT.set_forkserver_preload(["torch", "torchvision", "pandas", "scipy.stats", "sklearn.datasets"])


def _run(code, arguments, environment, output):
    "In the new process."
    os.environ.update(environment)
    with open(output, "w", encoding="utf-8") as file:
        for stream in (1, 2): os.dup2(file.fileno(), stream)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})


def python(code, *arguments, output, **environment):
    "Start what `python -c code arguments` does; what it prints goes to the file `output`. Returns the process."
    process = CONTEXT.Process(target=_run, args=(code, list(map(str, arguments)), environment, output))
    process.start()
    return process


def finished(process, seconds=600):
    "The exit code of a process, which is ended where it takes too long."
    process.join(seconds)
    if process.is_alive(): process.kill()
    process.join()
    return process.exitcode
