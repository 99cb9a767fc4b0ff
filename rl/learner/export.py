"""The full weights of a model that may be split over ranks or carry adapters, one chunk at a time on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from rl.learner.lora import adapted_layer, is_adapter, merge, published_name

EXPORT_CHUNK_BYTES = 512 * 2**20  # of weights held at once, beside the model, while publishing
Named = list[tuple[str, torch.Tensor]]
Whole = Callable[[list[torch.nn.Parameter]], AbstractContextManager[object]]


class Exporter:
    """Reads the weights of one rank. Its methods are collective, and all ranks but the first get nothing."""

    def __init__(self, model: torch.nn.Module, *, rank: int, whole: Whole) -> None:
        """`whole` makes parameters that are split over ranks whole for a while. Made before they are split."""
        self._model = model
        self._rank = rank
        self._whole = whole
        self._plan = _plan(model)

    @property
    def num_chunks(self) -> int:
        return len(self._plan)

    def announce(self, index: int) -> dict[str, list[Any]]:
        """Names, dtypes and whole shapes of one chunk, in its order. Not collective: nothing is gathered."""
        parameters = dict(self._model.named_parameters())
        wanted = [parameters[name] for name in self._plan[index]]
        return {
            "names": [published_name(name) for name in self._plan[index]],
            "dtype_names": [str(parameter.dtype).removeprefix("torch.") for parameter in wanted],
            "shapes": [list(getattr(parameter, "ds_shape", parameter.shape)) for parameter in wanted],
        }

    def chunk(self, index: int, *, place: Literal["cpu", "first", "all"] = "cpu") -> Named:
        """Weights of one chunk by Hugging Face name, adapters merged: copies on the CPU of the first rank, or on the
        device of the first or of all ranks."""
        parameters = dict(self._model.named_parameters())
        wanted = [(name, parameters[name]) for name in self._plan[index]]
        adapters = {name: adapted_layer(self._model, name) for name in self._plan[index]}
        needed = [parameter for _, parameter in wanted]
        needed += [
            parameter
            for layer in adapters.values()
            if layer is not None
            for name, parameter in layer.named_parameters()
            if is_adapter(f".{name}")
        ]
        with torch.no_grad(), self._whole(needed):
            if self._rank != 0 and place != "all":
                return []
            copy = _copy if place == "cpu" else _copy_there
            merged = []
            for name, parameter in wanted:
                layer = adapters[name]
                value = parameter.detach() if layer is None else merge(parameter.detach(), layer)
                merged.append((published_name(name), copy(value)))
            return merged

    def adapters(self) -> dict[str, torch.Tensor]:
        """The adapters alone, by name in the model."""
        wanted = [(name, p) for name, p in self._model.named_parameters() if is_adapter(name)]
        with self._whole([parameter for _, parameter in wanted]):
            return {} if self._rank != 0 else {name: _copy(parameter.detach()) for name, parameter in wanted}

    def all(self) -> Iterator[tuple[str, torch.Tensor]]:
        for index in range(self.num_chunks):
            yield from self.chunk(index)

    def checksums(self) -> dict[str, str]:
        """Digest of every exported tensor."""
        return {name: _digest(tensor) for name, tensor in self.all()}


def _copy(value: torch.Tensor) -> torch.Tensor:
    # Copied: ZeRO keeps parameters as views of one flat buffer, and pickling a view carries the whole buffer.
    return value.to("cpu", copy=True).contiguous()


def _copy_there(value: torch.Tensor) -> torch.Tensor:
    return value.clone(memory_format=torch.contiguous_format)


def _plan(model: torch.nn.Module) -> list[list[str]]:
    """Names of the parameters of each chunk, in model order; a larger parameter is a chunk of its own."""
    chunks: list[list[str]] = [[]]
    room = EXPORT_CHUNK_BYTES
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            continue
        size = parameter.numel() * parameter.element_size()
        if chunks[-1] and size > room:
            chunks.append([])
            room = EXPORT_CHUNK_BYTES
        chunks[-1].append(name)
        room -= size
    return chunks


def _digest(tensor: torch.Tensor) -> str:
    content = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
    content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
