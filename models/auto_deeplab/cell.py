"""The cell of a layer, as decoded. B batch, C channels, H, W size of a map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.auto_deeplab.operations import READS_RECTIFIED, Atrous, CellNorm, build_operation
from models.layers.blocks import enlarge, make_norm
from models.layers.drop_path import DropPath
from utils.architecture.genotype import Genotype


def shrink(maps: Tensor, factor: int) -> Tensor:
    """Shrink by a whole factor, sizes rounded up: (B, C, H, W) float -> (B, C, H / factor, W / factor) float.

    Each value is the mean of a square, at the border of the part inside: for a factor of 2 the bilinear resize,
    but with every pixel at its place also for odd sides.
    """
    return F.avg_pool2d(maps, factor, ceil_mode=True, count_include_pad=False) if factor > 1 else maps


class CellInput(nn.Module):
    """Bring the output of a layer to the width and stride of another: 1x1 convolution and norm at the smaller size.

    A finer map is shrunk before them, a coarser one enlarged bilinearly after them. The output of a layer has passed
    its ReLU already.

    Args:
        in_channels: Width of the source.
        channels: Width of the cell.
        source_stride: Stride of the source.
        stride: Stride of the cell.
        norm: Normalisation after the convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, source_stride: int, stride: int, norm: CellNorm) -> None:
        super().__init__()
        self.shrink_factor = max(1, stride // source_stride)
        self.enlarge_factor = max(1, source_stride // stride)
        self.convolution = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.norm = make_norm(norm, channels)

    def forward(self, source: Tensor, size: Sequence[int]) -> Tensor:
        """(B, in_channels, h, w) float -> (B, channels, H, W) float, of the given size (H, W)."""
        narrow = self.norm(self.convolution(shrink(source, self.shrink_factor)))
        return enlarge(narrow, self.enlarge_factor, size)


class DeepLabCell(nn.Module):
    """A layer: blocks that each add up operations on two earlier maps, concatenated and rectified.

    Args:
        genotype: Its blocks say which.
        channels: Width C of each block; the output has as many times that as there are blocks.
        stride: Of the layer.
        two_back: Width and stride of the output two layers back.
        one_back: Width and stride of the output of the layer before.
        atrous: As for `build_operation`.
        norm: As for `build_operation`.
        drop_path: Probability of dropping an operation other than "skip" for a sample, at the end of the training.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        stride: int,
        *,
        two_back: tuple[int, int],
        one_back: tuple[int, int],
        atrous: Atrous,
        norm: CellNorm,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.edges = genotype.blocks
        self.inputs = nn.ModuleDict(
            {
                name: CellInput(width, channels, source_stride=source, stride=stride, norm=norm)
                for name, (width, source) in (("two_back", two_back), ("one_back", one_back))
            }
        )
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {name: build_operation(operation, channels, atrous=atrous, norm=norm) for name, operation in block}
            )
            for block in genotype.blocks
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else None

    def forward(self, two_back: Tensor, one_back: Tensor, size: Sequence[int]) -> Tensor:
        """Outputs of the two layers before, (B, C', H', W') float -> (B, blocks x C, H, W) float of the size (H, W)."""
        states = {
            "two_back": self.inputs["two_back"](two_back, size),
            "one_back": self.inputs["one_back"](one_back, size),
        }
        rectified: dict[str, Tensor] = {}
        for number, (edges, operations) in enumerate(zip(self.edges, self.blocks, strict=True), start=1):
            terms = []
            for name, operation in edges:
                if operation in READS_RECTIFIED and name not in rectified:
                    rectified[name] = states[name].relu()
                source = rectified[name] if operation in READS_RECTIFIED else states[name]
                term = operations.get_submodule(name)(source)
                terms.append(term if self.drop_path is None or operation == "skip" else self.drop_path(term))
            states[f"block_{number}"] = terms[0] + terms[1]
        return torch.cat([states[f"block_{number}"] for number in range(1, len(self.edges) + 1)], dim=1).relu_()
