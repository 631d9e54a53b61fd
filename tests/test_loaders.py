"""Which batches a network gets."""

import sys
import warnings

import h5py
import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from examples import network
from processes import finished, python
from subspace_match import compare
from subspace_match.networks import loaders
from subspace_match.networks.activations import joint_grams


def test_loaders_out_of_step_are_an_error(images, loader):
    labels = torch.arange(len(images))
    shuffled = DataLoader(TensorDataset(images.flip(0), labels.flip(0)), batch_size=16)
    with pytest.raises(ValueError, match="out of step in batch 0: the labels differ"):
        compare([network(0), network(1)], {0: loader, 1: shuffled})
    shorter = DataLoader(TensorDataset(images[:32], labels[:32]), batch_size=16)
    with pytest.raises(ValueError, match="out of step"):
        compare([network(0), network(1)], {0: loader, 1: shorter})
    with pytest.raises(ValueError, match="0, 1 stands for 3 networks"):
        compare([network(k) for k in range(3)], {0: loader, 1: loader})


def test_distributed_sampler_is_refused(images):
    data = TensorDataset(images)
    loader = DataLoader(data, sampler=DistributedSampler(data, num_replicas=2, rank=0))
    with pytest.raises(ValueError, match="DistributedSampler"):
        compare([network(0), network(1)], loader)


class Stream(IterableDataset):
    "A data set without a length."

    def __iter__(self):
        return iter(torch.randn(30, 2, 8, 8))


def test_loaders_without_length(images):
    assert compare([network(0), network(1)], DataLoader(Stream(), batch_size=10)).pair("6").d == 30
    assert compare([network(0), network(1)], iter(images.split(35))).pair("6").d == 70
    assert compare([network(0), network(1)], {0: iter(images.split(35)), 1: iter(images.split(35))}).pair("6").d == 70


@pytest.mark.parametrize(
    "wrap",
    [
        lambda image, i: (image, 0, i),
        lambda image, i: {"input": image, "index": i},
        lambda image, i: (image, 0, f"{i}.png"),
    ],
)
def test_loaders_out_of_step_are_seen_in_whatever_they_yield(images, wrap):
    inputs = [wrap(image, i) for i, image in enumerate(images)]
    loaders = DataLoader(inputs, batch_size=35), DataLoader(inputs[::-1], batch_size=35)

    def forward(model, batch):
        return model(batch["input"] if isinstance(batch, dict) else batch[0])

    with pytest.raises(ValueError, match="out of step in batch 0: entries"):
        compare([network(0), network(1)], dict(enumerate(loaders)), forward=forward)
    assert compare([network(0), network(1)], {0: loaders[0], 1: loaders[0]}, forward=forward).pair("6").d == 70


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_generators_in_one_state_are_one_order(images):
    def shuffled(generator):
        return DataLoader(images, 35, shuffle=True, generator=generator)

    networks, shared = [network(0), network(0)], seeded()
    assert (compare(networks, {0: shuffled(seeded()), 1: shuffled(seeded())}).similarity(0.01).similarity == 1).all()
    used = seeded()
    next(iter(shuffled(used)))
    for generators in ((seeded(0), seeded(1)), (shared, shared), (seeded(), used)):
        with pytest.raises(ValueError, match="may be out of step"):
            compare(networks, {k: shuffled(generator) for k, generator in enumerate(generators)})


@pytest.mark.parametrize(
    "by_chance, sampler",
    [
        (True, lambda: RandomSampler(range(70))),
        (True, lambda: SubsetRandomSampler(range(70))),
        (True, lambda: WeightedRandomSampler([1] * 70, 70)),
        (False, lambda: RandomSampler(range(70), generator=seeded())),
        (False, lambda: SubsetRandomSampler(range(70), seeded())),
        (False, lambda: range(70)),
    ],
)
def test_an_order_by_chance_without_labels_is_refused(images, by_chance, sampler):
    networks, plain, chosen = (
        [network(0), network(1)],
        DataLoader(images, 35),
        DataLoader(images, 35, sampler=sampler()),
    )
    if not by_chance:
        assert compare(networks, {0: chosen, 1: DataLoader(images, 35, sampler=sampler())}).pair("6").d == 70
    else:
        name = type(chosen.sampler).__name__
        for loaders, orders in (
            ((chosen, plain), f"{name} and the data"),
            ((plain, chosen), f"the data and {name}"),
            ((chosen, chosen), f"{name} and {name}"),
        ):
            with pytest.raises(
                ValueError, match=f"network 0 and network 1 may be out of step: their orders are decided by {orders}"
            ):
                compare(networks, dict(enumerate(loaders)))
    batches = DataLoader(images, batch_sampler=BatchSampler(sampler(), 35, False))
    if by_chance:
        with pytest.raises(ValueError, match="may be out of step"):
            compare(networks, {0: batches, 1: batches})
    labelled = TensorDataset(images, torch.zeros(70))  # then labels tell, as far as they can
    assert (
        compare(networks, {0: DataLoader(labelled, 35), 1: DataLoader(labelled, 35, sampler=sampler())}).pair("6").d
        == 70
    )


def test_a_loader_of_any_kind_for_each_network(images):
    networks, bright = {"a": network(0), "b": network(1)}, list(images.split(35))
    expected = compare(networks, {"a": iter(bright), "b": iter([2 * batch for batch in bright])}).similarity()
    for several in (
        {"a": bright, "b": [2 * batch for batch in bright]},
        {"b": DataLoader(2 * images, 35), "a": DataLoader(images, 35)},
        {1: (2 * batch for batch in bright), 0: bright},
    ):
        np.testing.assert_allclose(compare(networks, several).similarity().similarity, expected.similarity)


@pytest.mark.parametrize(
    "wrong, problem",
    [
        (lambda bright: [bright, bright], "are they loaders.*write a dict"),
        (lambda bright: {"a": bright}, "0 stands for 2 networks"),
        (lambda bright: {"c": bright}, "not for c"),
        (lambda bright: {"pixel_values": bright[0]}, r"single batch is \[batch\]"),
        (lambda bright: dict.fromkeys("ab", iter(bright)), "take turns"),
        (lambda bright: {"a": bright[0], "b": bright[0]}, r"is written \[batch\]"),
        (lambda bright: {"a": bright, "b": 3}, "int can't"),
        (lambda bright: {"a": "train", "b": "test"}, "str can't"),
    ],
)
def test_loaders_by_network_that_are_none(images, wrong, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        compare({"a": network(0), "b": network(1)}, wrong(list(images.split(35))))


def test_a_list_is_of_batches_however_many_there_are(images):
    networks, halves = [network(0), network(1)], images.split(35)
    for batches in (
        halves,
        [[batch, torch.zeros(35)] for batch in halves],
        [(batch, batch) for batch in halves],
        [[batch] for batch in images.split(70)],
    ):
        assert compare(networks, list(batches)).pair("6").d == 70


def test_lists_of_loaders_still_work_and_warn(images):
    networks, halves = [network(0), network(1)], list(images.split(35))
    expected = compare(networks, halves).similarity()
    for several in ([DataLoader(images, 35), halves], (iter(halves), iter(halves))):
        with pytest.warns(DeprecationWarning, match="come in a dict") as caught:
            found = compare(networks, several)
        np.testing.assert_allclose(found.similarity().similarity, expected.similarity)
        assert caught[0].filename == __file__


def test_files_of_activations_are_only_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    np.save(tmp_path / "x.npy", x.astype(">f4"))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = compare([{"a": stored}, {"a": x}, {"a": x.astype("float16")}])
    assert (comparison.similarity(0.01).similarity == 1).all()


def test_stored_arrays_are_read_in_slices():
    slices = loaders._slices([{"a": np.zeros((10, 4, 5)), "b": np.zeros((10, 20))}], entries=120)
    assert slices == [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]


@pytest.mark.parametrize(
    "networks, loader, options, problem",
    [
        ("one module", "batches", {}, "in a list or a dict"),
        (["a.pt", "b.pt"], "batches", {}, "network 0 is of type str"),
        ([np.zeros((3, 9)), np.zeros((3, 9))], None, {}, "maximum_match and match_levels"),
        (None, "data set", {}, "DataLoader"),
        (None, "tensor", {}, r"is written \[batch\]"),
        (None, "batches", {"layers": nn.ReLU()}, "by type, name or glob"),
        (
            None,
            "batches",
            {"layers": {"network 7": "relu"}},
            "chosen for network 7, but the networks are network 0, network 1",
        ),
        (None, "batches", {"neuron_axis": {"rellu": 1}}, "did you mean ReLU"),
        (None, "batches", {"drawn": 0}, "drawn and draws count from 1"),
        ([{}, {}], None, {}, "network 0 holds no layers"),
        ([{"a": np.zeros((0, 3))}] * 2, None, {}, "hold no inputs"),
        ([{"a": np.zeros((9, 0))}] * 2, None, {}, "layer a of network 0.*is empty"),
        ([{"a": np.zeros((9, 2), int)}] * 2, None, {}, "layer a of network 0: its activations are int64"),
        ([{"a": np.zeros((9, 2), complex)}] * 2, None, {}, "complex128"),
        ([{"a": np.zeros(9)}] * 2, None, {}, "layer a of network 0: axis 0"),
        ({1: {"a": np.ones((9, 2))}, "0": {"a": np.ones((9, 2))}}, None, {}, "'1', not 1"),
        ([{0: np.ones((9, 2))}] * 2, None, {}, r"layers of network 0 are called by strings, not \[0\]"),
        (None, "batches", {"mask": torch.ones(70, 3)}, "mask is a function of the batch, not of type Tensor"),
        ([nn.Linear(8, 3)] * 2, "batches", {}, "choose layers, of the types Linear$"),
    ],
)
def test_mistakes_are_named(images, networks, loader, options, problem):
    networks = network(0) if networks == "one module" else networks or [network(0), network(1)]
    loader = {"batches": [images], "data set": TensorDataset(images), "tensor": images, None: None}[loader]
    with pytest.raises((TypeError, ValueError), match=problem):
        compare(networks, loader, **options)


def test_activations_in_files_are_read_in_slices(tmp_path):
    x, y = torch.randn(50, 4, 5), torch.randn(50, 3).bfloat16()
    save_file({"conv": x, "fc": y}, tmp_path / "a.safetensors")
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "conv.npy", x.numpy())
    np.save(tmp_path / "b" / "fc.npy", y.float().numpy())
    files = [loaders.stored_activations(tmp_path / name) for name in ("a.safetensors", "b")]
    expected = joint_grams([{"conv": x, "fc": y}, {"conv": x, "fc": y.float()}])
    found = joint_grams(files, cache=tmp_path / "cache")
    for layer in ("conv", "fc"):
        torch.testing.assert_close(found[layer].grams, expected[layer].grams)
    assert list(loaders.stored_activations(tmp_path / "b" / "fc.npy")) == ["fc"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["net/conv"], file["net/fc"] = x.numpy(), y.float().numpy()
    zarr.save_group(tmp_path / "a.zarr", conv=x.numpy(), fc=y.float().numpy())
    for name, group in (("a.h5", "net/"), ("a.zarr", "")):
        stored = loaders.stored_activations(tmp_path / name)
        assert list(stored) == [f"{group}conv", f"{group}fc"]
        for layer, joint in joint_grams([stored] * 2).items():
            n = joint.sizes[0]
            torch.testing.assert_close(joint.grams[:, :n, n:], expected[layer.removeprefix(group)].grams[:, :n, :n])
    with pytest.raises(FileNotFoundError, match="there is no"):
        loaders.stored_activations(tmp_path / "c")
    (tmp_path / "c.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="c.pt is no .npy"):
        loaders.stored_activations(tmp_path / "c.pt")
    for name in ("a.safetensors", "b/fc.npy", "a.h5"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:len(whole) // 2])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            loaders.stored_activations(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_ids_in_files_are_compared(tmp_path):
    names = [f"image {i}" for i in range(6)]
    def store(folder, names):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "fc.npy", np.ones((6, 3)))
        np.save(tmp_path / folder / "ids.npy", names)
        zarr.save_group(tmp_path / f"{folder}.zarr", fc=np.ones((6, 3)), ids=np.array(names))
        with h5py.File(tmp_path / f"{folder}.h5", "w") as file: file["fc"], file["ids"] = np.ones((6, 3)), names
        numbers = torch.tensor([int(name.split()[1]) for name in names])
        save_file({"fc": torch.rand(6, 3), "ids": numbers}, tmp_path / f"{folder}.safetensors")
    store("a", names)
    store("b", names[::-1])
    for ending in ("", ".zarr", ".h5", ".safetensors"):
        a, b = (loaders.stored_activations(tmp_path / f"{folder}{ending}") for folder in "ab")
        assert list(a) == ["fc"] and list(joint_grams([a, a], folds=0)) == ["fc"]
        with pytest.raises(ValueError, match="in another order: input 0 is .*5"): joint_grams([a, b])
    a, mixed = loaders.stored_activations(tmp_path / "a.h5"), loaders.stored_activations(tmp_path / "a.zarr")
    assert joint_grams([a, mixed], folds=0)["fc"].n_samples == 6        # the same names in another format
    with pytest.raises(ValueError, match="network 1 are others"): joint_grams([a, a], ids=[names, ["x"] * 6])


STREAM = """
import resource, sys
from pathlib import Path
import numpy as np
from subspace_match.networks import activations
from subspace_match.networks.comparison import compare
from subspace_match.networks.loaders import stored_activations

def data(): return int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])*1024

activations._take.__defaults__ = (*activations._take.__defaults__[:-1], 2**20)       # numbers in a piece
small = {"fc": np.random.rand(100, 3)}
compare([small, small], progress=False)                  # what is loaded at first use
first, second = map(stored_activations, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_DATA, [data() + 140*2**20]*2)
try: np.array(first["fc"][:])
except (MemoryError, OSError, RuntimeError): pass
else: sys.exit("the limit holds nothing back")
print(compare([first, second], progress=False).area().area.item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what is allocated on Linux only")
@pytest.mark.parametrize("kind", ["npy", "safetensors", "h5", "zarr"])
def test_files_larger_than_memory_are_compared(tmp_path, kind):
    "A file of 154 MB, one of 19 MB, and 147 MB for `compare`, which takes up to 105 of them for pieces of 8 MB."
    rng, paths = np.random.default_rng(0), [tmp_path / f"{k}.{kind}" for k in range(2)]
    folders = [path.with_suffix("") if kind == "npy" else path for path in paths]
    for path, folder, n in zip(paths, folders, (32, 4)):
        fc = rng.normal(size=(12_000, 1, n)).astype("f4") + rng.normal(size=(100, n)).astype("f4")
        if kind == "npy":
            folder.mkdir()
            np.save(folder / "fc.npy", fc)
        if kind == "safetensors": save_file({"fc": torch.from_numpy(fc)}, path)
        if kind == "zarr": zarr.create_group(path).create_array("fc", data=fc, chunks=(100, 100, n), compressors=None)
        if kind == "h5":
            with h5py.File(path, "w") as file: file.create_dataset("fc", data=fc, chunks=(100, 100, n))
    code = finished(python(STREAM, *folders, output=tmp_path / "said", OMP_NUM_THREADS="1"))
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert code == 0, said
    assert 0 < float(said.split()[-1]) < 1


def test_ids_of_stored_activations_are_compared():
    stored, names = [{"a": np.ones((3, 2))}, {"a": np.ones((3, 2))}], ["x", "y", "z"]
    assert joint_grams(stored, ids=[names, np.array(names)])["a"].n_samples == 3
    for ids, problem in (
        ([names, names[::-1]], "network 1 are in another order: input 0 is 'z', and 'x'"),
        ([names, ["x", "y", "w"]], "network 1 are others: input 2 is 'w'"),
        ([names, names[:2]], "network 1 holds 3 inputs, and there are 2 ids"),
        ([names], "1 lists of ids for 2"),
    ):
        with pytest.raises(ValueError, match=problem):
            joint_grams(stored, ids=ids)
    with pytest.raises(ValueError, match="ids are of stored"):
        joint_grams([network(0), network(1)], [torch.ones(3, 2, 8, 8)], ids=[names, names])
