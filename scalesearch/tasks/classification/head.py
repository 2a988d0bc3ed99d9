"""The classification network: one vector of logits for the whole picture."""

from torch import Tensor, nn

from scalesearch.networks.backbone import Backbone
from scalesearch.networks.blocks import conv_norm
from scalesearch.values.network_spec import NetworkSpec


class ImageClassifier(Backbone):
    """Backbone, an optional 1x1 convolution, global average pooling, dropout and a linear classifier."""

    output_layers = ("classifier",)

    def __init__(self, spec: NetworkSpec, *, dropout: float = 0.0) -> None:
        super().__init__(spec)
        channels = spec.stages[-1].channels if spec.stages else spec.stem.channels
        self.head: nn.Module = nn.Identity()
        if spec.head.channels:
            self.head = conv_norm(
                channels, spec.head.channels, kernel=1, activation=spec.activation, norm_eps=spec.norm_eps
            )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(spec.head.channels or channels, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images: (batch, image channels, H, W) to logits of shape (batch, classes)."""
        features = self.head(self.stages(self.stem(images)))
        logits: Tensor = self.classifier(self.dropout(self.flatten(self.pool(features))))
        return logits
