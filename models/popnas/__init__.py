"""Networks of a cell that POPNAS finds (arXiv:2212.06735)."""

from models.popnas.model import CellNet as CellNet
from models.popnas.segmenter import CellNetSegmenter as CellNetSegmenter
