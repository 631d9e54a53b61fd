"""Kernels that begin with the large libraries imported: each is forked from one process that imported them once.

Nearly half of the time of a small notebook goes by in `import torch` and its like. Here it is the same for all of them,
and each still has a process, and modules of this package, of its own. Linux only: elsewhere a fork is no safe copy.
"""
import multiprocessing
import os
import signal
import sys
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"
# the libraries, what a kernel imports as it begins, and what the program that starts it imports: it is imported anew in
# each kernel, for Python 3.11 leaves "__main__" out here
LIBRARIES = ["torch", "torchvision", "scipy.stats", "sklearn.datasets", "seaborn", "ipykernel.ipkernel",
             "ipykernel.debugger", "IPython.core.completer", "nbclient", "nbformat", "PIL.Image"]
BACKEND = "module://matplotlib_inline.backend_inline"   # a kernel's choice, which matplotlib reads at its import


def kernels():
    "Processes that are forked from one that was started for this, and has no threads."
    return multiprocessing.get_context("forkserver")


def run_kernel(arguments, folder, environment):
    "In the new process: what `python -m ipykernel_launcher` does."
    os.setsid()                                         # the kernel and its children can be ended together
    os.chdir(folder)
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    sys.path[:] = [path for path in sys.path if path and Path(path).resolve() != Path(__file__).resolve().parent]
    import pandas
    from ipykernel.kernelapp import IPKernelApp         # not before: it asks the environment who its parent is
    pandas.set_option("display.max_columns", 20)        # its own choice too, where it is imported in a notebook
    IPKernelApp.launch_instance(arguments)


class Process:
    "A forked kernel, with what jupyter_client uses of `subprocess.Popen`."
    stdin = stdout = stderr = None

    def __init__(self, *arguments):
        self.process = kernels().Process(target=run_kernel, args=arguments)
        self.process.start()

    pid = property(lambda self: self.process.pid)

    def poll(self): return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number): os.kill(self.pid, number)

    def kill(self): self.send_signal(signal.SIGKILL)

    def terminate(self): self.send_signal(signal.SIGTERM)


class Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd, **options):
        arguments = cmd[cmd.index(LAUNCHER) + 1:]
        self.process = Process(arguments, options["cwd"], options["env"])
        self.pid, self.cwd = self.process.pid, options["cwd"]
        return self.connection_info


class Manager(AsyncKernelManager):
    def __init__(self, **options):
        super().__init__(**options)
        self.provisioner = Provisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)


def prepare():
    "Options of a NotebookClient for forked kernels; none where they are not to be had."
    if sys.platform != "linux": return {}
    os.environ |= {"MPLBACKEND": BACKEND, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}   # the debugger has no more to say
    kernels().set_forkserver_preload(LIBRARIES)
    return {"kernel_manager_class": Manager}
