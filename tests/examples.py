"""Networks that several test files use."""

import torch
from torch import nn


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
