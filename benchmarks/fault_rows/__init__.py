"""The rows of benchmarks/faults.py, by kind of fault."""
