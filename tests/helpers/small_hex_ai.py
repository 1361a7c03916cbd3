"""A stand-in for hex_ai's network, narrow: its names, its shapes, its value after a tanh."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

CHANNELS = (8, 8, 16, 16)
"""Theirs are 64, 128, 256, 512."""


class TwoHeadedResNet(nn.Module):
    """``forward(board (B, 3, 13, 13))`` gives ``(policy_logits (B, 169), value (B, 1))``, the value within -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False)
        self.input_bn = nn.BatchNorm2d(CHANNELS[0])
        widths = (CHANNELS[0], *CHANNELS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Block(before, after), _Block(after, after)) for before, after in pairwise(widths)
        )
        self.policy_head = nn.Linear(CHANNELS[-1], 169)
        self.value_pre = nn.Linear(CHANNELS[-1], 16)
        self.value_head = nn.Linear(16, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        """Policy logits, and the value after tanh."""
        seen = torch.relu(self.input_bn(self.input_conv(board)))
        seen = self.layer4(self.layer3(self.layer2(self.layer1(seen)))).mean(dim=(2, 3))
        return self.policy_head(seen), torch.tanh(self.value_head(torch.relu(self.value_pre(seen))))


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
        self.downsample = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        change = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(self.downsample(x) + change)
