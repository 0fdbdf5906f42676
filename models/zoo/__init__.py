"""Trained networks that come with Espalier: a checkpoint and a card each."""
