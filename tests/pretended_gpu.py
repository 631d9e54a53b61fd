"""A GPU where there is none: tensors that say they are on one, refuse what CUDA refuses, and round as another device
might.
"""
from contextlib import nullcontext

import torch
from torch.overrides import TorchFunctionMode

# Functions that add up many numbers, beside all of torch.linalg: another device does it in another order.
SUMS = {"matmul", "einsum", "sum", "mean", "std", "norm", "cholesky_inverse", "conv2d", "linear"}

# What is asked of a tensor itself, its gradient for example, and not of a copy that shares its numbers.
ITSELF = {"__get__", "__set__"}


def gpu():
    "A context in which the device \"cuda\" is there: this machine's own, or a pretended one."
    return nullcontext() if torch.cuda.is_available() else PretendedGPU()


class OnGPU(torch.Tensor):
    "A tensor that says so."


class PretendedGPU(TorchFunctionMode):
    """Inside, tensors on this device compute on the CPU, mix with others no more than CUDA tensors do, and round
    otherwise.

    The device is "cuda", or "mps", Apple's, which has no float64.
    """

    def __init__(self, kind="cuda"):
        super().__init__()
        self.kind = kind
        self.random = torch.Generator().manual_seed(0)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name, tensors = dict(kwargs or {}), function.__name__, []
        changed((args, kwargs), tensors.append)
        there = any(isinstance(tensor, OnGPU) for tensor in tensors)
        with torch._C.DisableTorchFunction():
            if function == torch.Tensor.device.__get__:
                return torch.device(self.kind if there else "cpu", 0 if there else None)
            if function == torch.Tensor.is_cuda.__get__: return there and self.kind == "cuda"
            # so that module.to makes new parameters
            if function is torch._has_compatible_shallow_copy_type: return False
            if there and name not in ("to", "cpu"): refuse(name, args, tensors)
            if name in ITSELF: return changed(function(*args, **kwargs), lambda part: on_gpu(part) if there else part)
            if name == "requires_grad_": return function(*args, **kwargs)
            wanted = [kwargs["device"]] if kwargs.get("device") is not None else []
            if name == "to":
                wanted += [getattr(part, "device", part) for part in args[1:] if isinstance(part, (str, torch.device))]
                wanted += [self.kind if isinstance(part, OnGPU) else "cpu"
                           for part in args[1:] if isinstance(part, torch.Tensor)]
                args = (args[0], *("cpu" if isinstance(part, (str, torch.device)) else part for part in args[1:]))
            if "device" in kwargs: kwargs["device"] = "cpu"
            if there:
                args, kwargs = changed((args, kwargs), off_gpu)
                if name in SUMS or name.startswith("linalg_"):
                    args, kwargs = changed((args, kwargs), self.rounded_otherwise)
            if wanted: there = torch.device(wanted[0]).type != "cpu"
            if name in ("cpu", "cuda"): there = name == "cuda"
            function = torch.Tensor.clone if name == "cuda" else function
            result = function(*args, **kwargs)
            if not there: return result
            if self.kind == "mps": changed(result, refuse_float64)
            return map(on_gpu, result) if name == "__iter__" else changed(result, on_gpu)

    def rounded_otherwise(self, tensor):
        """Every number moved by up to two units in its last place: about what a sum or a factorisation in another order
        amounts to.
        """
        if not tensor.is_floating_point(): return tensor
        steps = torch.randint(-2, 3, tensor.shape, generator=self.random)
        return tensor * (1 + steps.to(tensor.dtype) * torch.finfo(tensor.dtype).eps)


def changed(part, change):
    """`part` with every tensor in it replaced by what `change` makes of it; it may be a tensor, or hold some in tuples,
    lists and dicts.
    """
    if isinstance(part, torch.Tensor): return change(part)
    if isinstance(part, (tuple, list)): return type(part)([changed(item, change) for item in part])
    if isinstance(part, dict): return {key: changed(item, change) for key, item in part.items()}
    return part


def on_gpu(tensor): return tensor.as_subclass(OnGPU)
def off_gpu(tensor): return tensor.as_subclass(torch.Tensor) if isinstance(tensor, OnGPU) else tensor


def refuse_float64(tensor):
    "Raise what PyTorch raises for Apple's GPUs."
    if tensor.dtype == torch.float64: raise TypeError("the MPS framework doesn't support float64")


def refuse(name, args, tensors):
    """Raise what CUDA raises where a function gets tensors of both places; those without axes, and indices on the CPU,
    may come from there.
    """
    if name in ("numpy", "__array__"): raise TypeError("can't convert cuda:0 device type tensor to numpy")
    if name in ("__getitem__", "__setitem__"):
        tensors = [args[0]]
        changed(args[2:], tensors.append)
    if any(not isinstance(tensor, OnGPU) and tensor.dim() for tensor in tensors):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")
