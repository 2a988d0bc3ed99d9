"""Torch modules as a user would bring them, found by `own_modules:NAME`."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Residual(nn.Module):
    """A skip connection in place, a depthwise convolution, BatchNorm and a linear head; total stride 4."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.one = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.act = nn.ReLU(inplace=True)
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)
        )
        self.point = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.one(x)
        y += x
        x = self.point(self.depthwise(self.act(y)))
        x = torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self.fc(self.drop(x))
        return logits


class Twice(nn.Module):
    """Registers a norm and the last layer once more, under names that come first; they run by their later ones."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        net = Residual(classes)
        self.norm, self.fc = net.stem[1], net.fc
        self.body = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


class ConvolutionHead(nn.Module):
    """Its last layer is a 1x1 convolution, and is not the last one that was registered."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(12, 7, 1, bias=False)
        self.body = nn.Sequential(nn.Conv2d(1, 12, 3, stride=4), nn.ReLU(), nn.Conv2d(12, 12, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.score(self.body(x)).mean(dim=(2, 3))
        return scores


class NamesOutputs(nn.Module):
    """Has layers of the name by which the program's own modules tell what their last layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output_layers = nn.Sequential(nn.Linear(16, 10), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output_layers(self.body(x))
        return logits


class Wrapped(nn.Module):
    """What a user's forward may return instead of logits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = Residual(), kind

    def forward(self, x: Tensor) -> object:
        logits = self.net(x)
        if self.kind == "fixed" and x.shape[2] != 32:
            msg = "expected 32 px"
            raise ValueError(msg)
        if self.kind == "branch" and float(x.sum()) > 1e9:
            return logits * 2
        answers = {
            "tuple": (logits, logits),
            "map": x,
            "dict": {"logits": logits},
            "doubled": torch.cat([logits, logits], dim=1),
        }
        return answers.get(self.kind, logits)


def residual() -> nn.Module:
    return Residual()


def two_classes() -> nn.Module:
    return Residual(classes=2)


def twice() -> nn.Module:
    return Twice()


def twice_two_classes() -> nn.Module:
    return Twice(classes=2)


def four_channels() -> nn.Module:
    return Residual(channels=4)


def convolution_head() -> nn.Module:
    return ConvolutionHead()


def names_outputs() -> nn.Module:
    return NamesOutputs()


def weight_normed() -> nn.Module:
    net = Residual()
    for layers in (net.stem, net.one, net.point):
        weight_norm(layers[0])
    return net


def with_constants() -> nn.Module:
    net = Residual()
    net.mean, net.std = (0.4, 0.5, 0.6), torch.tensor([0.2, 0.25, 0.3])  # type: ignore[assignment]
    return net


def of_timm() -> nn.Module:
    net = Residual()
    net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # type: ignore[assignment]
    return net


def normalising() -> nn.Module:
    """Normalises in its forward (as far as anyone knows): its constants are buffers."""
    net = Residual()
    net.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
    net.register_buffer("std", torch.full((1, 3, 1, 1), 0.5))
    return net


def normalising_by_parameters() -> nn.Module:
    """As `normalising`, but the constants are parameters that are not trained."""
    net = Residual()
    for name in ("mean", "std"):
        net.register_parameter(name, nn.Parameter(torch.full((1, 3, 1, 1), 0.5), requires_grad=False))
    return net


def buffers_in_bytes() -> nn.Module:
    net = Residual()
    net.register_buffer("mean", torch.tensor([123.7, 116.3, 103.5]))
    net.register_buffer("std", torch.tensor([58.4, 57.1, 57.4]))
    return net


def in_bytes() -> nn.Module:
    net = Residual()
    net.mean, net.std = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # type: ignore[assignment]
    return net


def weightless() -> nn.Module:
    return nn.Flatten()


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def half_and_frozen() -> nn.Module:
    return Residual().half().requires_grad_(False)


def returns_tuple() -> nn.Module:
    return Wrapped("tuple")


def returns_map() -> nn.Module:
    return Wrapped("map")


def returns_dict() -> nn.Module:
    return Wrapped("dict")


def doubled() -> nn.Module:
    return Wrapped("doubled")


def of_one_size() -> nn.Module:
    return Wrapped("fixed")


def with_branches() -> nn.Module:
    return Wrapped("branch")


class BatchNormAct2d(nn.BatchNorm2d):
    """As in timm: the activation is part of the norm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))  # type: ignore[no-any-return]


def fused_norm() -> nn.Module:
    norm = BatchNormAct2d(8)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    layers = nn.Conv2d(3, 8, 3, stride=2), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    return nn.Sequential(*layers)


class Shuffled(nn.Module):
    """Channels in two groups that are mixed by a reshape to a fixed number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 16, 3, stride=4), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x.reshape(x.shape[0], 2, 8, x.shape[2], x.shape[3]).transpose(1, 2).flatten(1, 2)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def shuffled() -> nn.Module:
    return Shuffled()


class Viewing(nn.Module):
    """Calls `view` on a map of 4x4 (at 32 px), which channels-last images do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        logits: Tensor = self.fc(x.view(x.size(0), -1))
        return logits


def viewing() -> nn.Module:
    return Viewing()


class InOneType(nn.Module):
    """Takes float32 alone: one kernel is a tensor that no `module.to` converts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32, 10)
        self.blur = torch.full((1, 1, 3, 3), 1 / 9)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x.mean(dim=1, keepdim=True), self.blur).expand(-1, 3, -1, -1)
        x = torch.relu(self.body(torch.relu(self.stem(x)).float()))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def in_one_type() -> nn.Module:
    return InOneType()


class Otherwise(Residual):
    """Does something else in training mode than in eval mode."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if not self.training:
            return logits
        return (logits, logits) if self.kind == "auxiliary" else logits.detach()  # type: ignore[return-value]


def auxiliary() -> nn.Module:
    return Otherwise("auxiliary")


def detached() -> nn.Module:
    return Otherwise("detached")


def group_normed() -> nn.Module:
    layers = nn.Conv2d(3, 64, 3, stride=4), nn.GroupNorm(32, 64), nn.ReLU(), nn.Conv2d(64, 48, 3), nn.GroupNorm(4, 48)
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


class Tokens(nn.Module):
    """Linear layers on (images, tokens, channels), as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.fc = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(16, 10)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8, bias=False)
        self.out = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.narrow(torch.relu(self.wide(x)))
        logits: Tensor = self.fc(torch.relu(self.out(x)).mean(dim=1))
        return logits


def tokens() -> nn.Module:
    return Tokens()


class Attending(nn.Module):
    """A transformer's block with 4 heads, whose queries, keys and values come out of one layer, or of three."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.patch, self.norm, self.fc = nn.Conv2d(3, 32, 8, stride=8), nn.LayerNorm(32), nn.Linear(32, 10)
        self.qkv, self.values, self.out = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 32)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        images, tokens, _ = x.shape
        y = self.norm(x)
        if self.kind == "reshape":
            q, k, v = self.qkv(y).reshape(images, tokens, 3, 4, -1).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = self.qkv(y).chunk(3, dim=-1)
        if self.kind == "heads":
            v = self.values(y)
        if self.kind in ("chunk", "heads"):
            q, k, v = (part.reshape(images, tokens, 4, -1).transpose(1, 2) for part in (q, k, v))
        y = torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v
        y = y if self.kind == "one head" else y.transpose(1, 2).reshape(images, tokens, -1)
        x = x + self.out(y)
        x = x + self.narrow(torch.relu(self.wide(x)))
        logits: Tensor = self.fc(x.mean(dim=1))
        return logits


def attending() -> nn.Module:
    return Attending("chunk")


def attending_reshaped() -> nn.Module:
    return Attending("reshape")


def attending_in_one() -> nn.Module:
    return Attending("one head")


def attending_apart() -> nn.Module:
    return Attending("heads")


class RunsTwice(nn.Module):
    """Runs one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 16, 3, stride=4), nn.Conv2d(16, 16, 1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.relu(self.body(torch.relu(self.stem(x)))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def runs_twice() -> nn.Module:
    return RunsTwice()


class PaddedConvolution(nn.Conv2d):
    """Looks at its input before it convolves, which torch.fx cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 2:
            x = nn.functional.pad(x, (0, 1))
        return super().forward(x)


def of_a_subclass() -> nn.Module:
    layers = PaddedConvolution(3, 16, 3, stride=4), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(16, 10))


class HeadOfMaps(nn.Module):
    """Its last layer is a 3x3 convolution, which cannot be replaced; its linear layer has more outputs than it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate = nn.Conv2d(3, 16, 3, stride=4), nn.Linear(16, 16)
        self.score = nn.Conv2d(16, 7, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        x = x * torch.sigmoid(self.gate(x.mean(dim=(2, 3))))[:, :, None, None]
        logits: Tensor = self.score(x).mean(dim=(2, 3))
        return logits


def head_of_maps() -> nn.Module:
    return HeadOfMaps()
