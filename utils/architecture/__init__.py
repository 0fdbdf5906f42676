"""Cells, paths and genotypes as plain data: no torch. Networks are built from them, and searches decide them."""
