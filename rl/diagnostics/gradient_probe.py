"""Gradients of the attention matrices of every layer, for single samples, without touching anything that trains.

`torch.autograd.grad` hands the gradients over instead of accumulating them, so neither `.grad` nor the optimizer nor
DeepSpeed's hooks ever see them. The formulas are in `rl/diagnostics/layer_gradients.py`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch

from rl.diagnostics.layer_gradients import GradientShape, gradient_shape, mean_absolute_difference

_PLACE = re.compile(r"\.(\d+)\.[^.]*(?:attn|attention)[^.]*\.(?:.*\.)?(\w+)\.weight$")

Matrices = dict[str, list[torch.nn.Parameter]]
"""Projection, such as q_proj, to its matrices in the order of the layers."""


def attention_matrices(model: torch.nn.Module) -> Matrices:
    """The attention projections of a Hugging Face model.

    Raises:
        ValueError: none is found, or one is missing in some layer.
    """
    found: defaultdict[str, dict[int, torch.nn.Parameter]] = defaultdict(dict)
    for name, parameter in model.named_parameters():
        match = _PLACE.search(name)
        if match and parameter.ndim == 2 and parameter.requires_grad:
            found[match[2]][int(match[1])] = parameter
    layers = {tuple(sorted(by_layer)) for by_layer in found.values()}
    if len(layers) != 1:
        raise ValueError(
            f"the layer-gradient probe needs the same trainable attention matrices in every layer, and finds "
            f"{ {name: len(by_layer) for name, by_layer in found.items()} } in {type(model).__name__}; set "
            f"diagnostics.gradient_every = 0"
        )
    return {name: [by_layer[i] for i in sorted(by_layer)] for name, by_layer in found.items()}


def probe_gradients(matrices: Matrices, samples: Iterable[tuple[torch.Tensor, float]]) -> dict[str, float]:
    """Metrics by name, means over the samples.

    Args:
        matrices: what `attention_matrices` returns.
        samples: loss of each sample, with its graph, and its mean advantage. Lazy: one graph is held at a time.
    """
    parameters = [parameter for by_layer in matrices.values() for parameter in by_layer]
    shapes: list[dict[str, list[GradientShape]]] = []
    advantages: list[float] = []
    for loss, advantage in samples:
        gradients = iter(torch.autograd.grad(loss, parameters))
        shapes.append({name: [gradient_shape(next(gradients)) for _ in row] for name, row in matrices.items()})
        advantages.append(advantage)
    if not shapes:
        raise ValueError("the layer-gradient probe needs at least one sample, got none")
    values = _by_layer(shapes)
    for name in matrices:
        values[f"gradients/{name}/mad"] = _mean(
            mean_absolute_difference([s.nuclear for s in of[name]]) for of in shapes
        )
    favoured, rejected = (
        _mean(
            s.nuclear
            for of, a in zip(shapes, advantages, strict=True)
            if a * sign > 0
            for row in of.values()
            for s in row
        )
        for sign in (1, -1)
    )
    if favoured > 0 and rejected > 0:
        values["gradients/rejected_over_favoured"] = rejected / favoured
    return values


def _by_layer(shapes: Sequence[Mapping[str, Sequence[GradientShape]]]) -> dict[str, float]:
    """Nuclear norm, Frobenius norm and peak of every layer: means over samples and projections."""
    num_layers = len(next(iter(shapes[0].values())))
    values: dict[str, float] = {}
    for layer in range(num_layers):
        here = [row[layer] for of in shapes for row in of.values()]
        values[f"gradients/nuclear/layer_{layer:02d}"] = _mean(s.nuclear for s in here)
        values[f"gradients/frobenius/layer_{layer:02d}"] = _mean(s.frobenius for s in here)
        values[f"gradients/peak/layer_{layer:02d}"] = _mean(s.peak for s in here)
    return values


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
