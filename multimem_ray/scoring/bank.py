"""The bank in scoring: M reference models in one process, one decode for all of them.

A batch is moved to the device once, as the integers it was decoded to, prepared there once, and
embedded by every model. Models that don't fit on the device wait in host memory and take turns:
while those on the device compute, the next ones are copied. How many that are changes no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimem_ray.metric import Agreement, agreement
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.adapters import adapter, is_adapter
from multimem_ray.models.checkpoint import load_weights, read_weights
from multimem_ray.models.contrastive import ContrastiveModel, build_model, channels_last
from multimem_ray.models.precision import require_precision
from multimem_ray.run import Run

# On a CPU, features of this size stay in the cache while all models read them: 16 clips of 8
# frames of 32 pixels, 128 pictures of that size.
_CPU_FEATURE_BYTES = 3 << 19
# Share of the free memory of a GPU for weights; the rest is for what is computed with them.
_WEIGHT_SHARE = 0.5


@dataclass(frozen=True)
class Views:
    """Seeded views of B samples: V batches, all with the same samples in the same order."""

    batches: Sequence[Batch]
    present: Tensor

    def at(self, row: int) -> Views:
        """The views of one of the samples."""
        return Views([batch.select([row]) for batch in self.batches], self.present[row : row + 1])


def make_views(run: Run, keys: Sequence[str], decoded: Sequence[Mapping[str, Array]]) -> Views:
    """The views that scores are an expectation over; a function of seed and key alone."""
    scoring, decoder = run.config.scoring, run.decoder
    batches = []
    for view in range(scoring.views):
        made = [
            decoder.views(key, arrays, scoring.seed, view)
            for key, arrays in zip(keys, decoded, strict=True)
        ]
        batches.append(decoder.collate(made))
    return Views(batches, batches[0].present(run.modalities))


class ScoringBank:
    """All finished reference models of a run, ready to embed.

    Args:
        run: The run; its models must be done.
        device: Where they compute.
        models: Numbers of the models; default: all.

    Raises:
        ModelError: A model is missing or damaged.
    """

    def __init__(self, run: Run, device: torch.device, models: Sequence[int] | None = None) -> None:
        self.run = run
        self.device = device
        ids = run.design.model_ids()
        chosen = ids if models is None else [ids[number] for number in models]
        self.count = len(chosen)
        require_precision(device, run.config.scoring.precision, "scoring.precision")
        self._of_others = {
            number: _on(_adapted(run, model_id), device)
            for number, model_id in enumerate(chosen)
            if _is_of_others(run, model_id)
        }
        self._own = [number for number in range(self.count) if number not in self._of_others]
        self._turns = _turns(run, device, [chosen[n] for n in self._own]) if self._own else None
        dims = [model.dim for model in self._of_others.values()]
        self.dim = max([*dims, run.config.model.dim] if self._own else dims)

    @torch.inference_mode()
    def embed(self, views: Views) -> Tensor:
        """Embeddings of all models: (M, V, B, n, d) float32; zero where a modality is absent.

        d is the most that a model has; those with fewer dimensions are zero in the others, which
        changes no product of two embeddings.
        """
        names = self.run.modalities
        shape = (self.count, len(views.batches), len(views.present), len(names), self.dim)
        out = torch.zeros(*shape, device=self.device)
        moved = [_moved(batch, self.device) for batch in views.batches]
        for numbers, models in self._parties():
            for view, batch in enumerate(moved):
                for name, rows, raw in _pieces(batch, self.device):
                    features = models[0].prepare({name: raw})
                    for number, model in zip(numbers, models, strict=True):
                        embedded = model.embed(features)[name]
                        out[number, view, rows, names.index(name), : model.dim] = embedded
        return out

    def _parties(self) -> Iterator[tuple[Sequence[int], Sequence[ContrastiveModel]]]:
        """Models that prepare their inputs alike, with their numbers."""
        if self._turns is not None:
            for places, models in self._turns.turns():
                yield [self._own[place] for place in places], models
        for number, model in self._of_others.items():
            yield [number], [model]

    def agreements(self, views: Views, means: Tensor) -> list[Agreement]:
        """Agreement matrices of B samples under each model, on the CPU.

        Args:
            means: (M, n, d), held-out mean vectors.
        """
        present = views.present.to(self.device)
        found = [
            agreement(embedded, present, mean)
            for embedded, mean in zip(self.embed(views), means.to(self.device), strict=True)
        ]
        alignment = torch.stack([a.alignment for a in found]).cpu()
        uniformity = torch.stack([a.uniformity for a in found]).cpu()
        return [Agreement(a, u) for a, u in zip(alignment, uniformity, strict=True)]


class ResidentModels:
    """All models on the device."""

    def __init__(self, models: Sequence[ContrastiveModel]) -> None:
        self._models = models

    def turns(self) -> Iterator[tuple[range, Sequence[ContrastiveModel]]]:
        yield range(len(self._models)), self._models


class OffloadedModels:
    """Some models on the device at a time; the weights of the rest wait in (pinned) host memory.

    The models on the device are shells in two halves. While one half computes, weights are copied
    into the other on a stream of their own; events keep a shell from being overwritten while it
    is read. With one shell there is nothing to overlap.
    """

    def __init__(
        self, shells: Sequence[ContrastiveModel], weights: Sequence[Sequence[Tensor]]
    ) -> None:
        half = max(1, len(shells) // 2)
        self._halves = [shells[:half], shells[half : 2 * half]] if len(shells) > 1 else [shells]
        self._weights = weights
        on_gpu = next(shells[0].parameters()).is_cuda
        self._stream: Any = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]
        # The last turn's models stay until the next batch comes, which begins with others.
        self._free: list[Any] = [None for _ in self._halves]

    def turns(self) -> Iterator[tuple[range, Sequence[ContrastiveModel]]]:
        size, count = len(self._halves[0]), len(self._weights)
        spans = [range(at, min(at + size, count)) for at in range(0, count, size)]
        ready = self._copy(0, spans[0])
        for turn, span in enumerate(spans):
            half = turn % len(self._halves)
            if ready is not None:
                torch.cuda.current_stream().wait_event(ready)
            overlaps = len(self._halves) > 1 and turn + 1 < len(spans)
            if overlaps:
                ready = self._copy((turn + 1) % len(self._halves), spans[turn + 1])
            yield span, self._halves[half][: len(span)]
            self._free[half] = self._mark()
            if not overlaps and turn + 1 < len(spans):
                ready = self._copy(half, spans[turn + 1])

    def _copy(self, half: int, span: range) -> Any:
        """Start copying weights into the shells of a half; returns the event of its end."""
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            if self._free[half] is not None:
                self._stream.wait_event(self._free[half])
            for shell, number in zip(self._halves[half], span, strict=False):
                for own, waiting in zip(_tensors(shell), self._weights[number], strict=True):
                    own.copy_(waiting, non_blocking=True)
            return self._stream.record_event() if self._stream else None

    def _mark(self) -> Any:
        return torch.cuda.current_stream().record_event() if self._stream else None


def _turns(run: Run, device: torch.device, ids: Sequence[str]) -> ResidentModels | OffloadedModels:
    first = _loaded(run, ids[0])
    wanted = run.config.resources.score.models_on_device
    most = _that_fit(first, device) if wanted == "auto" else wanted
    if most >= len(ids):
        return ResidentModels([_on(model, device) for model in (first, *_others(run, ids))])
    weights = [_host_tensors(model, device) for model in (first, *_others(run, ids))]
    shells = [_on(_built(run), device) for _ in range(most)]
    return OffloadedModels(shells, weights)


def _others(run: Run, ids: Sequence[str]) -> Iterator[ContrastiveModel]:
    return (_loaded(run, model_id) for model_id in ids[1:])


def _built(run: Run) -> ContrastiveModel:
    return _for_scoring(
        run, build_model(run.config.model, run.decoder.modalities, seed=0, weights=False)
    )


def _for_scoring(run: Run, model: ContrastiveModel) -> ContrastiveModel:
    model.precision = run.config.scoring.precision
    return model.requires_grad_(requires_grad=False).eval()


def _is_of_others(run: Run, model_id: str) -> bool:
    """Whether a model brings its own architecture, and so its own way to prepare inputs."""
    return is_adapter(run.design.checkpoints().get(model_id, ""))


def _adapted(run: Run, model_id: str) -> ContrastiveModel:
    name = run.design.checkpoints()[model_id]
    own: dict[str, Any] = {
        "adapter": name,
        "init": None,
        "freeze": [],
        "dim": adapter(name, run.config.model.allow).describe().dim,
    }
    config = run.config.model.model_copy(update=own)
    return _for_scoring(run, build_model(config, run.decoder.modalities, seed=0))


def _loaded(run: Run, model_id: str) -> ContrastiveModel:
    given = run.design.checkpoints().get(model_id)
    model = _built(run)
    if given is None:
        run.model_folder(model_id).load_into(model)
    else:
        load_weights(model, read_weights(run.storage, given), given)
    return model


def _on(model: ContrastiveModel, device: torch.device) -> ContrastiveModel:
    return channels_last(model.to(device))


def _tensors(model: ContrastiveModel) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _host_tensors(model: ContrastiveModel, device: torch.device) -> list[Tensor]:
    """Weights in the memory order of the device's, pinned where a GPU will fetch them."""
    tensors = [tensor.detach() for tensor in _tensors(_on(model, torch.device("cpu")))]
    return [tensor.pin_memory() for tensor in tensors] if device.type == "cuda" else tensors


def _that_fit(model: ContrastiveModel, device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 30
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(tensor.nbytes for tensor in _tensors(model))
    return max(1, int(_WEIGHT_SHARE * free / max(size, 1)))


def _moved(batch: Batch, device: torch.device) -> Batch:
    if device.type != "cuda":
        return batch
    pinned = {name: values.pin_memory() for name, values in batch.values.items()}
    return Batch(pinned, batch.rows, batch.size).to(device, non_blocking=True)


def _pieces(batch: Batch, device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Modality, rows and raw values; on a CPU in pieces that its cache can hold."""
    for name in batch.names:
        rows, raw = batch.rows[name], batch.values[name]
        size = len(rows)
        if device.type == "cpu" and len(raw):
            floats = 4 * raw[0].numel()
            size = max(8, _CPU_FEATURE_BYTES // floats)
        for at in range(0, len(rows), size):
            yield name, rows[at : at + size], raw[at : at + size]


def pick_device(gpus: float) -> torch.device:
    """The GPU that Ray gave to this actor, or the CPU where none was asked for."""
    return torch.device("cuda") if gpus and torch.cuda.is_available() else torch.device("cpu")
