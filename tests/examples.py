"""Networks that several test files use, and what a process of two does."""

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from subspace_match.networks.activations import joint_grams


def network(seed, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9 * width, 7),
        nn.ReLU(inplace=True),
        nn.Linear(7, 3),
    )


class Twice(nn.Module):
    "One ReLU module, used twice, as in torchvision's residual blocks."

    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 5), nn.Linear(5, 5), nn.ReLU(inplace=True)

    def forward(self, x):
        inner = self.relu(self.a(x))
        return self.relu(self.b(inner) + inner)


SMALL = {"vocab_size": 50, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}


def sums_together(rank, store, images, folder):
    "In one of two processes: the sums over the images of both, saved."
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    for drawn in (None, 100):
        grams = joint_grams(
            [network(0), network(1)],
            DataLoader(TensorDataset(images), batch_size=16),
            drawn=drawn,
            draws=2,
            inputs_kept=5,
        )
        found = {
            name: (joint.grams, joint.sums, joint.n_samples, joint.fold_grams, joint.fold_samples, joint.n_inputs)
            for name, joint in grams.items()
        }
        chance = {name: joint.shifted for name, joint in grams.items()}
        torch.save(
            (found, chance, {name: list(joint.kernels.values()) for name, joint in grams.items()}),
            f"{folder}/{drawn}-{rank}.pt",
        )
    dist.destroy_process_group()
