"""Small nets for the tests: one of each kind of layer, and the ways in which nets use them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Around:
    """A function of a module and rows as a model, by default the module itself."""

    module: nn.Module
    function: Callable[[nn.Module, Any], Tensor] = lambda module, X: module(X)

    def __call__(self, X: Any) -> Tensor:
        return self.function(self.module, X)

    def on(self, module: nn.Module) -> "Around":
        return replace(self, module=module)


@dataclass(frozen=True)
class Case:
    """A net in the making, its rows, and the parameters (prefixes) that no layer rule serves."""

    name: str
    module: Callable[[], nn.Module]
    X: Callable[[], Tensor]
    by_vjp: tuple[str, ...] = ()
    row_by_row: tuple[str, ...] = ()

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
        """The net in eval mode and its rows, the same ones each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = self.module()
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.uniform_(0.5, 1.5)
            for parameter in module.parameters():
                # away from the zeros and ones with which biases and scales start
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            X = self.X()
        return module.to(dtype).eval(), X.to(dtype) if X.is_floating_point() else X


def normal(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape)


def codes(high: int, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(high, shape)


class Residual(nn.Module):
    """In-place ReLU and +=."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.relu_()
        r = self.b(h)
        r += h
        return self.c(F.relu(r, inplace=True))


class Branches(nn.Module):
    """Two branches of one input, one of them a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Conv1d(1, 2, 3)
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        right = self.right(x[:, None]).tanh().flatten(1)
        return self.head(torch.cat([self.left(x).tanh(), right], 1))


class Reused(nn.Module):
    """One layer called three times, another never."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.head, self.unused = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.step(x).tanh()
        return self.head(x)


class Tied(nn.Module):
    """One weight in two layers, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight
        self.again = self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.b(self.a(x).tanh()).tanh()).tanh())


class CutOff(nn.Module):
    """A layer that is called, but that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.aside, self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b((self.a(x) + self.aside(x).detach()).tanh())


class TiedEmbedding(nn.Module):
    """The embedding's weight also serves as the output layer, by a functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.mix(self.embedding(x).mean(1)).tanh(), self.embedding.weight)


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_scale.exp()


class OwnParameter(nn.Module):
    """Parameters that the net itself owns, outside any layer, and a positional table."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(4, 3))
        self.place = nn.Linear(2, 4)
        self.inner = Scale(3)

    def forward(self, x: Tensor) -> Tensor:
        shift = self.place(torch.ones(4, 2, dtype=x.dtype)).sum(0)
        return self.inner((x + shift) @ self.mix)


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], batch_first: bool) -> None:
        super().__init__()
        self.first, self.core = batch_first, kind(2, 3, batch_first=batch_first)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.core(x)[0] if self.first else self.core(x.transpose(0, 1))[0].transpose(0, 1)
        return self.head(h[:, -1])


class Attention(nn.Module):
    """Attention over the rows' words, words or rows first; a mask as long as the batch."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.first = batch_first
        self.core = nn.MultiheadAttention(4, 2, batch_first=batch_first)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.transpose(0, 1)
        mask = torch.triu(torch.ones(x.shape[1], x.shape[1]), 1).bool() if self.first else None
        h = self.core(x, x, x, need_weights=False, attn_mask=mask)[0]
        return self.head(h.mean(1 if self.first else 0))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x).mean(1))


class Folded(nn.Module):
    """Layers that see the B·T words of the batch as rows, or the words first."""

    def __init__(self, words_first: bool) -> None:
        super().__init__()
        self.words_first, self.embed, self.head = words_first, nn.Linear(3, 4), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        n, n_words = x.shape[:2]
        if self.words_first:
            return self.head(self.embed(x.transpose(0, 1)).tanh().mean(0))
        h = self.norm(self.embed(x.reshape(n * n_words, -1)).tanh())
        return self.head(h.reshape(n, n_words, -1).mean(1))


class PythonBranch(nn.Module):
    """Python control flow on the values of each row, which torch.func cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.randn(3)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = [row * self.scale if row.sum() > 0 else row for row in x]
        return self.head(torch.stack(rows).tanh())


def frozen() -> nn.Module:
    net = mlp()
    for parameter in net[2].parameters():
        parameter.requires_grad_(False)
    return net


def frozen_start() -> nn.Module:
    net = mlp()
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    return net


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def pooled(*layers: nn.Module, channels: int) -> nn.Sequential:
    """Layers on (N, C, ...), a nonlinearity, the mean over space, and a linear head."""
    return nn.Sequential(
        *layers, nn.Tanh(), nn.Flatten(2), nn.AdaptiveAvgPool1d(2), nn.Flatten(), head(channels)
    )


def head(channels: int) -> nn.Module:
    return nn.Linear(2 * channels, 3)


def conv(n_dims: int, *args: Any, transposed: bool = False, **kwargs: Any) -> nn.Sequential:
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{n_dims}d")
    return pooled(kind(*args, **kwargs), channels=args[1])


def deep_conv() -> nn.Sequential:
    return pooled(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.GroupNorm(2, 4),
        channels=4,
    )


CASES = [
    Case("mlp", mlp, normal(5, 4)),
    Case("one_output", lambda: nn.Linear(3, 1), normal(4, 3)),
    Case("linear_on_words", lambda: pooled(nn.Linear(3, 5), channels=2), normal(4, 2, 3)),
    Case("frozen", frozen, normal(5, 4)),
    Case("frozen_start", frozen_start, normal(5, 4)),
    Case("residual_inplace", Residual, normal(5, 4)),
    Case("branches", Branches, normal(4, 5)),
    Case("reused", Reused, normal(4, 4), by_vjp=("unused",)),
    Case("cut_off", CutOff, normal(5, 4)),
    Case("tied", Tied, normal(4, 4)),
    Case("tied_embedding", TiedEmbedding, codes(6, 4, 3), by_vjp=("embedding",)),
    Case("own_parameter", OwnParameter, normal(5, 4), by_vjp=("mix", "place", "inner")),
    Case("folded_words", lambda: Folded(False), normal(4, 3, 3)),
    Case("words_first", lambda: Folded(True), normal(4, 3, 3), by_vjp=("embed", "norm")),
    Case("words_first_even", lambda: Folded(True), normal(4, 4, 3), by_vjp=("embed", "norm")),
    Case("conv1d", lambda: conv(1, 2, 3, 3, stride=2, padding=1), normal(4, 2, 7)),
    Case("conv1d_same", lambda: conv(1, 2, 3, 4, padding="same", dilation=2), normal(4, 2, 9)),
    Case("conv1d_valid", lambda: conv(1, 2, 3, 2, padding="valid"), normal(4, 2, 5)),
    Case(
        "conv2d", lambda: conv(2, 2, 3, (3, 2), stride=(1, 2), padding=(0, 1)), normal(4, 2, 5, 6)
    ),
    Case("conv2d_groups", lambda: conv(2, 4, 6, 3, groups=2, dilation=2), normal(4, 4, 7, 6)),
    Case("conv2d_depthwise", lambda: conv(2, 3, 6, 3, groups=3), normal(4, 3, 5, 5)),
    Case(
        "conv2d_circular",
        lambda: conv(2, 2, 3, 3, padding=(1, 2), padding_mode="circular"),
        normal(4, 2, 4, 5),
    ),
    Case(
        "conv2d_reflect",
        lambda: conv(2, 2, 3, (3, 4), padding="same", padding_mode="reflect"),
        normal(4, 2, 4, 5),
    ),
    Case("conv3d", lambda: conv(3, 1, 2, (2, 3, 1), padding=(1, 0, 0)), normal(3, 1, 3, 4, 2)),
    Case("conv_transpose1d", lambda: conv(1, 2, 3, 3, transposed=True), normal(4, 2, 4)),
    Case(
        "conv_transpose2d",
        lambda: conv(
            2, 4, 6, (3, 2), transposed=True, stride=2, padding=1, output_padding=1, groups=2
        ),
        normal(4, 4, 3, 4),
    ),
    Case(
        "conv_transpose2d_dilated",
        lambda: conv(2, 2, 3, 2, transposed=True, dilation=3, output_padding=2),
        normal(4, 2, 3, 3),
    ),
    Case("deep_conv", deep_conv, normal(4, 2, 6, 6)),
    Case(
        "embedding",
        lambda: pooled(nn.Embedding(7, 3, padding_idx=2), channels=5),
        codes(7, 6, 5),
    ),
    Case(
        "embedding_of_columns",
        lambda: nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)),
        codes(5, 4, 2),
    ),
    Case(
        "embedding_bag",
        lambda: nn.Sequential(nn.EmbeddingBag(5, 3), nn.Linear(3, 2)),
        codes(5, 4, 2),
        by_vjp=("0",),
    ),
    Case("layer_norm", lambda: pooled(nn.LayerNorm((3, 4)), channels=2), normal(4, 2, 3, 4)),
    Case("rms_norm", lambda: pooled(nn.RMSNorm(4), channels=3), normal(4, 3, 4)),
    Case("group_norm", lambda: pooled(nn.GroupNorm(2, 4), channels=4), normal(4, 4, 3, 2)),
    Case(
        "instance_norm",
        lambda: pooled(nn.InstanceNorm1d(3, affine=True), channels=3),
        normal(4, 3, 5),
    ),
    Case("batch_norm1d", lambda: nn.Sequential(mlp(), nn.BatchNorm1d(3)), normal(5, 4)),
    Case("batch_norm1d_on_words", lambda: pooled(nn.BatchNorm1d(3), channels=3), normal(4, 3, 5)),
    Case("batch_norm3d", lambda: pooled(nn.BatchNorm3d(2), channels=2), normal(4, 2, 2, 3, 2)),
    Case("prelu", lambda: nn.Sequential(nn.PReLU(), mlp(), nn.PReLU(3)), normal(4, 4)),
    Case(
        "weight_norm",
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)
        ),
        normal(4, 4),
        by_vjp=("0",),
    ),
    Case("rnn", lambda: Recurrent(nn.RNN, True), normal(4, 3, 2), by_vjp=("core",)),
    Case("lstm", lambda: Recurrent(nn.LSTM, True), normal(4, 3, 2), by_vjp=("core",)),
    Case("lstm_words_first", lambda: Recurrent(nn.LSTM, False), normal(3, 3, 2), by_vjp=("core",)),
    Case("gru", lambda: Recurrent(nn.GRU, True), normal(4, 3, 2), by_vjp=("core",)),
    Case("attention", lambda: Attention(True), normal(4, 4, 4), by_vjp=("core",)),
    Case("attention_words_first", lambda: Attention(False), normal(3, 3, 4), by_vjp=("core",)),
    Case("encoder", Encoder, normal(4, 3, 4), by_vjp=("core.self_attn",)),
    Case("python_branch", PythonBranch, normal(4, 3), row_by_row=("scale",)),
]
