"""Picture of a cell of blocks: SVG as a string, readable on light and on dark pages."""

from utils.architecture.cells.cell import Cell
from utils.architecture.svg import svg_document, svg_text

# Style of an operator's frame by the last word of its text: convolutions green, pools orange, attention blue.
_FAMILIES = {
    "maxpool": "pool",
    "avgpool": "pool",
    "identity": "skip",
    "SE": "atrous",
    "cvt": "atrous",
    "scvt": "atrous",
    "lstm": "atrous",
    "gru": "atrous",
}
_LANE, _ROW, _TOP = 26, 74, 50  # pixels between two lines, between two blocks, above the first block


def block_cell_svg(cell: Cell, *, concat_only_unused: bool = True, title: str = "Cell of the network") -> str:
    """Return a picture of a cell as wiring: a vertical line for each input and block, operators where it is read.

    Args:
        cell: Its blocks are shown.
        concat_only_unused: Whether only blocks that no other block reads are joined to the output; else all are.
        title: Read out to those who do not see the picture.
    """
    if not len(cell):
        return svg_document([svg_text(8, 24, "Empty cell: no block", "quiet")], 180, 40, title)
    lookbacks = tuple(reversed(cell.lookbacks))  # the farthest first
    blocks = range(len(cell))
    columns = {read: 24 + _LANE * place for place, read in enumerate((*lookbacks, *blocks))}
    left = 24 + _LANE * len(columns)  # of the boxes
    right, output = left + 216, left + 244
    middles = [_TOP + _ROW * place + 30 for place in blocks]
    begins = {**dict.fromkeys(lookbacks, 24 + 2), **dict(enumerate(middles))}
    joined = cell.unused_blocks if concat_only_unused else tuple(blocks)
    ends: dict[int, int] = {}
    wires, boxes = [], [svg_text(columns[read], 16, str(read), "strong", "middle") for read in lookbacks]
    for place, (block, middle) in enumerate(zip(cell.blocks, middles, strict=True)):
        boxes.append(f'<rect class="box" x="{left}" y="{middle - 30}" width="216" height="60" rx="8"/>')
        boxes.append(svg_text(left + 158, middle + 4, f"block {place}", "strong"))
        for (read, operator), y in zip(block.sides, (middle - 14, middle + 14), strict=True):
            ends[read] = y
            wires.append(f'<path class="line" d="M{columns[read]} {y}H{left + 8}"/>')
            boxes.append(f'<circle class="good" cx="{columns[read]}" cy="{y}" r="3.5"/>')
            family = _FAMILIES.get(operator.split(" ")[-1], "sep")
            pill = f'x="{left + 8}" y="{y - 12}" width="140" height="24" rx="12"'
            boxes.append(f'<rect class="{family}" {pill} fill="none" stroke-width="1.8"/>')
            boxes.append(svg_text(left + 78, y + 4, operator, "", "middle"))
        if place in joined:
            wires.append(f'<path class="line" d="M{right} {middle}H{output}"/>')
    for read, end in ends.items():
        start = f"{left} {begins[read]}H{columns[read]}" if read >= 0 else f"{columns[read]} {begins[read]}"
        wires.append(f'<path class="line" fill="none" d="M{start}V{end}"/>')
    # At least as long as a box, also for a single block.
    span = f"M{output} {middles[joined[0]] - 30}V{middles[joined[-1]] + 30}"
    wires.append(f'<path class="sep" stroke-width="4" d="{span}"/>')
    boxes.append(svg_text(output + 8, 35, "concatenated: output" if len(joined) > 1 else "output", "", "end"))
    return svg_document([*wires, *boxes], output + 16, middles[-1] + 40, title)
