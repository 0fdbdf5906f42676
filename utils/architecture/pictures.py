"""Pictures of genotypes and of how they were decided: SVG as strings, readable on light and on dark pages."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from utils.architecture.decoding import Floats, alpha_weights, beta_weights, decode_cell, decode_path, possible_moves
from utils.architecture.genotype import OPERATIONS, STRIDES, Genotype, cell_edges, input_names
from utils.architecture.svg import svg_document, svg_text
from utils.errors import TrainingError

_SHADES = 12
_ARROWS = ("↗", "→", "↘")  # to the finer, the same, the coarser stride, as the strides are drawn: finest above

_FAMILIES = {"max": "pool", "avg": "pool", "skip": "skip", "sep": "sep", "atrous": "atrous"}


def path_svg(genotype: Genotype, *, beta: ArrayLike | None = None, title: str = "Path of the network") -> str:
    """Return a picture of the strides by layer, with the path of a genotype.

    Args:
        genotype: Its strides are shown.
        beta: (L, 4, 3) logits; the other moves are then the stronger, the more weight they have.
        title: Read out to those who do not see the picture.
    """
    layers, column, row, left, top = genotype.num_layers, 46, 44, 96, 38
    weights = np.full((layers, len(STRIDES), 3), 0.4) if beta is None else beta_weights(beta)
    path = (0, *genotype.levels)
    parts = [
        svg_text(left - 22, top + row * level + 4, f"stride {s}", "quiet", "end") for level, s in enumerate(STRIDES)
    ]
    names = ["stem", *map(str, range(1, layers + 1))]
    parts += [svg_text(left + column * number, 16, name, "quiet", "middle") for number, name in enumerate(names)]
    lines = []
    for layer, level, move in np.argwhere(possible_moves(layers)).tolist():
        target = level + move - 1
        is_chosen = (level, target) == (path[layer], path[layer + 1])
        shade = 1 if is_chosen else 0.06 + 0.94 * weights[layer, level, move]
        style = 'class="sep" stroke-width="4"' if is_chosen else f'class="line" stroke-opacity="{shade:.2f}"'
        ends = f"M{left + column * layer} {top + row * level}L{left + column * (layer + 1)} {top + row * target}"
        lines.append((is_chosen, f'<path {style} d="{ends}"/>'))
    parts += [line for _, line in sorted(lines, key=lambda each: each[0])]  # the path lies on top
    for layer in range(layers + 1):
        for level in range(min(layer + 1, len(STRIDES))):
            style = 'class="good" r="8"' if path[layer] == level else 'class="box" r="6"'
            parts.append(f'<circle {style} cx="{left + column * layer}" cy="{top + row * level}"/>')
    return svg_document(parts, left + column * layers + 20, top + row * 3 + 20, title)


def cell_svg(genotype: Genotype, *, title: str = "Cell of the network") -> str:
    """Return a picture of the cell as wiring: a vertical line for each input and block, operations where it is read.

    Args:
        genotype: Its blocks are shown.
        title: Read out to those who do not see the picture.
    """
    blocks, lane, row, top = genotype.num_blocks, 26, 74, 50
    names = input_names(blocks)
    columns = {name: 20 + lane * place for place, name in enumerate(names)}
    left = 20 + lane * len(names)  # of the boxes
    right, output = left + 216, left + 244
    middles = [top + row * place + 30 for place in range(blocks)]
    begins = dict(zip(names, (24, 42, *middles), strict=False))
    ends: dict[str, int] = {}
    wires, boxes = [], [svg_text(12, 16, "two_back"), svg_text(columns["one_back"] - 8, 35, "one_back")]
    for place, (block, middle) in enumerate(zip(genotype.blocks, middles, strict=True)):
        boxes.append(f'<rect class="box" x="{left}" y="{middle - 30}" width="216" height="60" rx="8"/>')
        boxes.append(svg_text(left + 158, middle + 4, f"block_{place + 1}", "strong"))
        for (name, operation), y in zip(block, (middle - 14, middle + 14), strict=True):
            ends[name] = y
            wires.append(f'<path class="line" d="M{columns[name]} {y}H{left + 8}"/>')
            boxes.append(f'<circle class="good" cx="{columns[name]}" cy="{y}" r="3.5"/>')
            family = _FAMILIES[operation.split("_")[0]]
            pill = f'x="{left + 8}" y="{y - 12}" width="140" height="24" rx="12"'
            boxes.append(f'<rect class="{family}" {pill} fill="none" stroke-width="1.8"/>')
            boxes.append(svg_text(left + 78, y + 4, operation, "", "middle"))
        wires.append(f'<path class="line" d="M{right} {middle}H{output}"/>')
    for name, end in ends.items():
        start = (
            f"{left} {begins[name]}H{columns[name]}" if name.startswith("block") else f"{columns[name]} {begins[name]}"
        )
        wires.append(f'<path class="line" fill="none" d="M{start}V{end}"/>')
    wires.append(f'<path class="sep" stroke-width="4" d="M{output} {middles[0] - 30}V{middles[-1] + 30}"/>')
    boxes.append(svg_text(output + 8, 35, "all blocks: output", "", "end"))
    return svg_document([*wires, *boxes], output + 16, middles[-1] + 40, title)


def alpha_svg(
    alphas: ArrayLike,
    epochs: Sequence[int] = (),
    *,
    genotype: Genotype | None = None,
    title: str = "Weights of the operations",
) -> str:
    """Return a heat map of the weights of all operations of all edges over time.

    Args:
        alphas: (n, E, 8) logits of n epochs.
        epochs: Their numbers; without it 1 to n.
        genotype: The decoded one, whose operations are marked; None: that of the last epoch if all edges
            count the same.
        title: Read out to those who do not see the picture.
    """
    weights = _weights_by_epoch(alphas, alpha_weights)
    if not len(weights):
        return svg_document([svg_text(8, 24, "No epoch yet", "quiet")], 160, 40, title)
    num_edges = weights.shape[1]
    num_blocks = next(number for number in range(1, num_edges + 1) if len(cell_edges(number)) == num_edges)
    try:
        blocks = decode_cell(np.asarray(alphas)[-1]) if genotype is None else genotype.blocks
    except TrainingError:
        blocks = ()
    kept: list[dict[str, str]] = [dict(block) for block in blocks] if len(blocks) == num_blocks else [{}] * num_blocks
    left, top, width, pitch, row = 156, 28, 380, 38, 4
    parts = [*_axis(left, top - 10, width, len(weights), epochs)]
    for edge, (block, place) in enumerate(cell_edges(num_blocks)):
        y, name = top + pitch * edge, input_names(num_blocks)[place]
        label = f"{name} → block_{block + 1}"
        parts.append(svg_text(left - 8, y + 20, label, "strong" if name in kept[block] else "quiet", "end"))
        parts.append(_heat(weights[:, edge].T, (left, y), (width, row * len(OPERATIONS)), weights.max()))
        best = kept[block].get(name) or OPERATIONS[int(weights[-1, edge].argmax())]
        words = f"{best} {weights[-1, edge, OPERATIONS.index(best)]:.2f}"
        parts.append(svg_text(left + width + 8, y + 20, words, "strong" if name in kept[block] else "quiet"))
    y = top + pitch * num_edges + 12
    parts.append(
        svg_text(
            8, y, f"Strongest shade: weight {weights.max():.2f}. Bold: kept by decoding. Rows, from above:", "quiet"
        )
    )
    parts.append(svg_text(8, y + 17, ", ".join(OPERATIONS), "quiet"))
    return svg_document(parts, left + width + 162, y + 28, title)


def beta_svg(
    betas: ArrayLike,
    epochs: Sequence[int] = (),
    *,
    genotype: Genotype | None = None,
    title: str = "Weights of the moves",
) -> str:
    """Return heat maps of the weights of all moves over time, for each layer and each stride that it is entered from.

    Args:
        betas: (n, L, 4, 3) logits of n epochs.
        epochs: Their numbers; without it 1 to n.
        genotype: The decoded one, whose path is framed; None: that of the last epoch.
        title: Read out to those who do not see the picture.
    """
    weights = _weights_by_epoch(betas, beta_weights)
    if not len(weights):
        return svg_document([svg_text(8, 24, "No epoch yet", "quiet")], 160, 40, title)
    layers = weights.shape[1]
    try:
        strides = decode_path(np.asarray(betas)[-1]) if genotype is None else genotype.strides
    except TrainingError:
        strides = ()
    path = (0, *map(STRIDES.index, strides)) if len(strides) == layers else ()
    left, top, column, pitch, row = 128, 44, max(24, min(64, 760 // layers)), 52, 13
    parts = [svg_text(left - 8, 16, "into layer", "quiet", "end")]
    for level, stride in enumerate(STRIDES):
        parts.append(svg_text(left - 28, top + pitch * level + 22, f"from stride {stride}", "quiet", "end"))
        for move, arrow in enumerate(_ARROWS):
            if 0 <= level + move - 1 < len(STRIDES):
                parts.append(svg_text(left - 8, top + pitch * level + row * move + 10, arrow, "quiet", "end"))
    for layer, level in np.argwhere(possible_moves(layers).any(axis=2)).tolist():
        corner, size = (left + column * layer, top + pitch * level), (column - 4, row * 3)
        is_on_path = bool(path) and path[layer] == level
        parts.append(_heat(weights[:, layer, level].T, corner, size, weights.max(), is_marked=is_on_path))
    parts += [
        svg_text(left + column * (layer + 0.5) - 2, 16, str(layer + 1), "quiet", "middle") for layer in range(layers)
    ]
    parts += _axis(left, top - 10, column - 4, len(weights), epochs)
    words = f"Strongest shade: weight {weights.max():.2f}. Framed: the decoded path."
    parts.append(svg_text(left, top + pitch * 4 + 6, words, "quiet"))
    return svg_document(parts, max(left + column * layers + 12, left + 366), top + pitch * 4 + 18, title)


def _weights_by_epoch(logits: ArrayLike, normalize: Callable[[ArrayLike], Floats]) -> Floats:
    """Return the weights of each epoch; of an epoch whose logits are not finite, zeros."""
    rows = []
    for each in np.asarray(logits, dtype=np.float64):
        try:
            rows.append(normalize(each))
        except TrainingError:
            rows.append(np.zeros_like(each))
    return np.array(rows)


def _heat(
    weights: Floats, corner: tuple[int, int], size: tuple[int, int], largest: float, *, is_marked: bool = False
) -> str:
    """Return a heat map of (rows, epochs): one path for each shade, in which equal neighbours are one rectangle."""
    rows, columns = weights.shape
    shades = np.ceil(weights / max(largest, 1e-9) * _SHADES - 1e-9).astype(int)
    paths: dict[int, list[str]] = {}
    for row in range(rows):
        starts = [0, *(np.flatnonzero(np.diff(shades[row])) + 1).tolist(), columns]
        for start, end in itertools.pairwise(starts):
            paths.setdefault(int(shades[row, start]), []).append(f"M{start} {row}h{end - start}v1h{start - end}z")
    drawn = "".join(
        f'<path class="good" fill-opacity="{shade / _SHADES:.2f}" d="{"".join(paths[shade])}"/>'
        for shade in sorted(paths)
        if shade > 0
    )
    frame = f'x="{corner[0]}" y="{corner[1]}" width="{size[0]}" height="{size[1]}"'
    scale = f"translate({corner[0]} {corner[1]}) scale({size[0] / columns:.5g} {size[1] / rows:.5g})"
    style = 'class="sep" stroke-width="2"' if is_marked else 'class="line" stroke-opacity="0.5"'
    return f'<g transform="{scale}" shape-rendering="crispEdges">{drawn}</g><rect {style} {frame} fill="none"/>'


def _axis(left: int, y: int, width: int, columns: int, epochs: Sequence[int]) -> Iterable[str]:
    """Return the numbers of the first and the last epoch above a heat map."""
    numbers = list(epochs) or list(range(1, columns + 1))
    if width < 200:
        return [svg_text(left, y, f"epochs {numbers[0]} to {numbers[-1]}", "quiet small")]
    ends = [svg_text(left, y, f"epoch {numbers[0]}", "quiet")]
    return [*ends, svg_text(left + width, y, f"epoch {numbers[-1]}", "quiet", "end")] if columns > 1 else ends
