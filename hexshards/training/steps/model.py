"""Reference network: boards to move and winner, ``forward(board) -> (policy_logits, value_logit, ...)``.

Any ``torch.nn.Module`` that does so can be trained:

- board_B3SS float32: planes BLUE stones, RED stones, player to move (0.0 BLUE, 1.0 RED);
- policy_logits_BC float32 over the cells, ``cell = row * S + col``, before softmax;
- value_logit_B1 float32: the logit of RED winning; its sigmoid is compared with 0.0 (BLUE won) or 1.0 (RED);
- what other heads it is trained with, (B, 1) float32 each: the plies to the end, the logit of what a search said.

What it learns must live in its ``state_dict``, buffers included: that is all a checkpoint keeps of it.
Randomness must come from torch's global generators, which a checkpoint keeps as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hexshards.arguments import checked
from hexshards.training.options import TRAIN, head_names

PLANES = 3
"""Planes of a board: BLUE, RED, player to move."""


class TwoHeadedResNet(nn.Module):
    """Residual network (ResNet) with a policy and a value head; the same weights serve every side from 3 to 19.

    Fully convolutional: the value head sees each plane's mean and maximum over the board, as do further ``heads``.
    """

    @checked
    def __init__(
        self,
        *,
        channels: int = TRAIN.channels,
        blocks: int = TRAIN.blocks,
        dropout: float = TRAIN.dropout,
        heads: str = TRAIN.heads,
    ) -> None:
        super().__init__()
        if channels < 1 or blocks < 0:
            raise ValueError(f"channels must be at least 1 and blocks at least 0, got {channels} and {blocks}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")
        self.dropout = dropout
        self.stem = nn.Sequential(_conv3x3(PLANES, channels), nn.BatchNorm2d(channels), _relu())
        self.tower = nn.Sequential(*(_Residual(channels) for _ in range(blocks)))
        self.policy = nn.Sequential(
            _conv3x3(channels, channels), nn.BatchNorm2d(channels), _relu(), nn.Conv2d(channels, 1, 1)
        )
        self.value = _of_board(channels)
        others = [name for name in head_names(heads) if name not in ("policy", "value")]
        # made last: the first weights of all that comes before are those of a network without them
        self.others = nn.ModuleDict({name: _of_board(channels) for name in others})

    def forward(self, board_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Policy logits (B, S * S), the logit of RED winning (B, 1), and (B, 1) of each further head."""
        seen = self.tower(self.stem(board_B3SS))
        pooled = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        if self.dropout and self.training:  # else nothing is drawn
            seen, pooled = functional.dropout2d(seen, self.dropout), functional.dropout(pooled, self.dropout)
        others = [_SCALE.get(name, 1) * answer(pooled) for name, answer in self.others.items()]
        return self.policy(seen).flatten(1), self.value(pooled), *others


_SCALE = {"moves_left": 20}
"""A head that counts to 100 and more learns as fast as the others where its numbers are about as large as theirs."""


def _of_board(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, 1))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            _conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
            _relu(),
            _conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.change(x)
        changed += x
        return changed.relu_()


def _relu() -> nn.ReLU:
    # in place, as the sum of a residual block: a batch norm's gradient needs what came in, not what went out. The same
    # bits without fresh memory: a step of 16 channels took 0.96 of its time, one of 32 channels 0.89
    return nn.ReLU(inplace=True)


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    # no bias: a batch norm follows each of them and has its own
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
