"""Transformers over the pixels of a map, after CvT (arXiv:2103.15808). B batch, C channels, H, W size, N = H W."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.popnas.layers import Extent, make_activation
from utils.architecture.cells.network import CellActivation

MLP_RATIO = 2


class PixelAttention(nn.Module):
    """Attention of all pixels to all, each head as wide as the map.

    Unlike in CvT, queries, keys and values are linear: the embedding before has seen the neighbours already.

    Args:
        channels: C.
        heads: Number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(channels, 3 * heads * channels, bias=False)
        self.join = nn.Linear(heads * channels, channels, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, N, C) float -> (B, N, C) float."""
        batch, count, channels = pixels.shape
        parts = self.project(pixels).view(batch, count, 3, self.heads, channels)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        result: Tensor = self.join(attended.transpose(1, 2).reshape(batch, count, self.heads * channels))
        return result


class TransformerLayer(nn.Module):
    """Attention and, optionally, a perceptron, each normalised before and added to its input.

    Args:
        channels: C.
        heads: Of the attention.
        activation: Of the perceptron; None for none.
    """

    def __init__(self, channels: int, heads: int, activation: CellActivation | None) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(channels), PixelAttention(channels, heads))
        self.perceptron = None
        if activation is not None:
            self.perceptron = nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, MLP_RATIO * channels, bias=False),
                make_activation(activation),
                nn.Linear(MLP_RATIO * channels, channels, bias=False),
            )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, N, C) float -> (B, N, C) float."""
        pixels = pixels + self.attention(pixels)
        return pixels if self.perceptron is None else pixels + self.perceptron(pixels)


class ConvTransformer(nn.Module):
    """A convolution that makes pixels of a map, and layers of a transformer over them.

    Args:
        embedding: The convolution, (B, C', H', W') -> (B, C, H, W).
        channels: C.
        heads: Of each layer.
        layers: Number of layers.
        activation: In their perceptrons.
        has_mlp: Whether the layers have perceptrons.
    """

    def __init__(
        self,
        embedding: nn.Module,
        channels: int,
        *,
        heads: int,
        layers: int,
        activation: CellActivation,
        has_mlp: bool,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(
            *(TransformerLayer(channels, heads, activation if has_mlp else None) for _ in range(layers))
        )

    def forward(self, maps: Tensor, _extent: Extent) -> Tensor:
        """(B, C', H', W') float -> (B, C, H, W) float."""
        embedded = self.embedding(maps)
        pixels = self.layers(self.norm(embedded.flatten(2).transpose(1, 2)))
        result: Tensor = pixels.transpose(1, 2).unflatten(2, embedded.shape[2:])
        return result
