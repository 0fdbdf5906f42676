"""Speeds next to those of a peer, or of the limit of the machine, in the same run."""
