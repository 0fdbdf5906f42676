"""An ensemble of graph networks over the graphs of cells, one per fold, trained together.

Dimensions: M members, N cells, V nodes, H features, C labels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from search.worker.predictors.learners.graphs import ABSENT, CellGraphs

Array = NDArray[np.float64]
_LAYERS, _HEAD = 2, 64
_LEARNING_RATE, _WEIGHT_DECAY = 0.005, 5e-4
_LEAST_BATCH, _MOST_STEPS = 16, 16  # of an epoch
_PATIENCE = 20  # epochs
_PREDICTED = 1024  # cells at once


@dataclass(frozen=True)
class EnsembleOptions:
    """How the graph networks are trained.

    Attributes:
        members: Networks of the ensemble, which is also the number of folds.
        epochs: At most.
        features: Of a node.
        on_progress: Called at each epoch, and between the other parts of a prediction.
    """

    members: int = 5
    epochs: int = 80
    features: int = 24
    on_progress: Callable[[], None] = lambda: None


class GraphEnsemble:
    """Graph isomorphism networks, each trained without one fold, whose mean is predicted.

    A node gets the sum of the nodes that feed it, the sum of those that it feeds and itself, each with weights of its
    own, then a perceptron (Xu et al., 2019, https://arxiv.org/abs/1810.00826, with types of edges as in Schlichtkrull
    et al., 2018, https://arxiv.org/abs/1703.06103). Sums and means over nodes describe the cell. All members are
    trained for the number of epochs after which the mean error on the held-out folds was least.

    Args:
        graphs: N cells.
        values: (N,) of mean 0 and variance about 1.
        folds: (N,) number of the fold of each cell, from 0 to M - 1; none is empty.
        options: How they are trained.
        seed: Of weights and order.
    """

    def __init__(
        self, graphs: CellGraphs, values: Array, folds: NDArray[np.intp], options: EnsembleOptions, seed: int
    ) -> None:
        self._members = int(folds.max()) + 1
        self._generator = torch.Generator().manual_seed(seed)
        self._size = float((graphs.labels != ABSENT).sum(axis=1).mean())
        self._parameters = self._initial(graphs.num_labels, options.features)
        self._num_labels = graphs.num_labels
        labels, edges = _tensors(graphs)
        targets = torch.from_numpy(values).float()
        training = [torch.from_numpy(np.flatnonzero(folds != member)) for member in range(self._members)]
        is_held_out = torch.from_numpy(folds[None] == np.arange(self._members)[:, None]).float()
        self._train((labels, edges, targets), training, is_held_out, options)
        with torch.no_grad():
            fitted = self._outputs(labels.expand(self._members, -1, -1), edges.expand(self._members, -1, -1, -1))
        self.held_out: Array = (fitted * is_held_out).sum(dim=0).double().numpy()
        self._error = float(np.sqrt(np.mean((self.held_out - values) ** 2)))

    def _initial(self, num_labels: int, features: int) -> list[Tensor]:
        """Return parameters: the embedding, six per layer, four of the head."""

        def weights(inputs: int, outputs: int, gain: float = 1.0) -> Tensor:
            drawn = torch.randn(self._members, inputs, outputs, generator=self._generator)
            return (drawn * (gain * math.sqrt(2 / inputs))).requires_grad_()

        def bias(outputs: int) -> Tensor:
            return torch.zeros(self._members, 1, outputs, requires_grad=True)

        parameters = [weights(num_labels + 1, features, math.sqrt(num_labels / 2))]
        for _ in range(_LAYERS):
            parameters += [weights(features, features, 0.7) for _ in range(3)]
            parameters += [bias(features), weights(features, features), bias(features)]
        return [*parameters, weights(2 * features, _HEAD), bias(_HEAD), weights(_HEAD, 1, 0.5), bias(1)]

    def _outputs(self, labels: Tensor, edges: Tensor) -> Tensor:
        """Return (M, N) values of cells, each member for its own: labels (M, N, V), edges (M, N, V, V)."""
        members, count, nodes = labels.shape
        embedding, *layers = self._parameters
        is_there = (labels != self._num_labels).float().reshape(members, count * nodes, 1)
        flat = labels.reshape(members, count * nodes)
        state = torch.stack([table[rows] for table, rows in zip(embedding, flat, strict=True)]) * is_there
        forward, backward = edges.reshape(-1, nodes, nodes).transpose(1, 2), edges.reshape(-1, nodes, nodes)
        for start in range(0, 6 * _LAYERS, 6):
            itself, fed, feeding, bias, second, second_bias = layers[start : start + 6]
            nodewise = state.reshape(members * count, nodes, -1)
            from_inputs = torch.bmm(forward, nodewise).reshape(state.shape)
            from_readers = torch.bmm(backward, nodewise).reshape(state.shape)
            hidden = torch.baddbmm(bias, state, itself) + torch.bmm(from_inputs, fed) + torch.bmm(from_readers, feeding)
            state = (state + torch.baddbmm(second_bias, F.silu(hidden), second)) * is_there
        total = state.reshape(members, count, nodes, -1).sum(dim=2)
        sizes = is_there.reshape(members, count, nodes).sum(dim=2, keepdim=True)
        first, bias, last, last_bias = layers[6 * _LAYERS :]
        hidden = torch.baddbmm(bias, torch.cat([total / sizes, total / self._size], dim=2), first)
        return torch.baddbmm(last_bias, F.silu(hidden), last)[..., 0]

    def _train(
        self,
        data: tuple[Tensor, Tensor, Tensor],
        training: Sequence[Tensor],
        is_held_out: Tensor,
        options: EnsembleOptions,
    ) -> None:
        """Train all members, and restore the parameters of the epoch with the least error on the held-out folds."""
        (labels, edges, targets), length = data, min(map(len, training))
        batch = max(_LEAST_BATCH, math.ceil(length / _MOST_STEPS))
        steps = math.ceil(length / batch)
        optimizer = torch.optim.AdamW(self._parameters, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * steps)
        least, best_epoch, best = math.inf, 0, [each.detach().clone() for each in self._parameters]
        for epoch in range(options.epochs):
            options.on_progress()
            orders = [rows[torch.randperm(len(rows), generator=self._generator)] for rows in training]
            for start in range(0, length, batch):
                rows = torch.stack([order[start : min(start + batch, length)] for order in orders])
                loss = ((self._outputs(labels[rows], edges[rows]) - targets[rows]) ** 2).mean(dim=1).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                every = self._outputs(labels.expand(self._members, -1, -1), edges.expand(self._members, -1, -1, -1))
                error = float(((every - targets) ** 2 * is_held_out).sum())
            if error < least:
                least, best_epoch, best = error, epoch, [each.detach().clone() for each in self._parameters]
            elif epoch - best_epoch >= _PATIENCE:
                break
        self._parameters = best

    @torch.no_grad()
    def predict(self, graphs: CellGraphs) -> tuple[Array, Array]:
        """Return mean and deviation (N,) of the values of cells.

        The variance is that of the members plus their squared error on the folds that they have not seen.
        """
        outputs = []
        for start in range(0, len(graphs), _PREDICTED):
            labels, edges = _tensors(graphs[start : start + _PREDICTED])
            for_members = labels.expand(self._members, -1, -1), edges.expand(self._members, -1, -1, -1)
            outputs.append(self._outputs(*for_members).double())
        every = torch.cat(outputs, dim=1).numpy()
        return every.mean(axis=0), np.sqrt(every.var(axis=0) + self._error**2)


def _tensors(graphs: CellGraphs) -> tuple[Tensor, Tensor]:
    """Return labels, in which an absent node has the label C, and edges as numbers."""
    labels = np.where(graphs.labels == ABSENT, graphs.num_labels, graphs.labels)
    return torch.from_numpy(labels), torch.from_numpy(graphs.edges).float()
