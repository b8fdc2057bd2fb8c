"""Residual nets for the experiments on images, and how they are trained."""

from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from skorch.dataset import ValidSplit
from torch import Tensor, nn

NETS: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (8, 16), "blocks": 1, "first_stride": 2},
    "small": {"widths": (16, 32, 64), "blocks": 1, "first_stride": 2},
    # for images this small a 3 by 3 first layer without pooling, as in the paper
    "resnet18": {"widths": (64, 128, 256, 512), "blocks": 2, "first_stride": 1},
}
N_CLASSES = 10
WEIGHT_DECAY = 5e-4


class Block(nn.Module):
    """Two 3 by 3 convolutions around a shortcut (He et al. 2016); dropout of whole channels."""

    def __init__(self, n_in: int, n_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or n_in != n_out:
            projection = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class ResidualNet(nn.Sequential):
    """Stages of blocks, each but the first at half the resolution of the one before."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        blocks: int,
        first_stride: int,
        dropout: float,
    ) -> None:
        first = nn.Conv2d(channels, widths[0], 3, first_stride, padding=1, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(widths[0]), nn.ReLU()]
        n_in = widths[0]
        for stage, n_out in enumerate(widths):
            for k in range(blocks):
                layers.append(Block(n_in, n_out, 2 if stage > 0 and k == 0 else 1, dropout))
                n_in = n_out
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, N_CLASSES))
        super().__init__(*layers, *head)


def image_net(
    kind: str, channels: int, epochs: int, device: str, dropout: float = 0.0
) -> NeuralNetClassifier:
    """SGD with momentum, whose learning rate falls along a cosine, on nine tenths of the rows.

    The last tenth chooses prior precisions; it stops nothing.
    """
    return NeuralNetClassifier(
        ResidualNet,
        **{f"module__{name}": value for name, value in NETS[kind].items()},
        module__channels=channels,
        module__dropout=dropout,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=WEIGHT_DECAY,
        lr=0.05,
        batch_size=64,
        iterator_train__shuffle=True,
        iterator_train__drop_last=True,  # batch normalisation learns nothing from a single row
        iterator_valid__batch_size=500,
        max_epochs=epochs,
        train_split=ValidSplit(10, stratified=True),
        callbacks=[("cosine", LRScheduler("CosineAnnealingLR", T_max=epochs))],
        callbacks__valid_acc=None,
        callbacks__print_log=None,
        device=device,
        verbose=0,
    )
