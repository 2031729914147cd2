"""The bank in scoring: M reference models in one process, one decode for all of them.

A batch is moved to the device once, as the integers it was decoded to, prepared there once, and
embedded by every model. Models that don't fit on the device wait in host memory and take turns
(:mod:`multimem_ray.scoring.offload`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from multimem_ray.config import ScoringConfig
from multimem_ray.errors import SampleError
from multimem_ray.metric import Agreement, agreement
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.adapters import adapter, is_adapter
from multimem_ray.models.build import build_model
from multimem_ray.models.checkpoint import load_weights, read_weights
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.models.precision import require_precision
from multimem_ray.run import Run
from multimem_ray.scoring.offload import on_device, placed

# On a CPU, features of this size stay in the cache while all models read them: 16 clips of 8
# frames of 32 pixels, 128 pictures of that size.
_CPU_FEATURE_BYTES = 3 << 19


@dataclass(frozen=True)
class Views:
    """Seeded views of B samples: V batches, all with the same samples in the same order."""

    batches: Sequence[Batch]
    present: Tensor

    def at(self, row: int) -> Views:
        """The views of one of the samples."""
        return Views([batch.select([row]) for batch in self.batches], self.present[row : row + 1])


def make_views(
    decoder: Decoder,
    scoring: ScoringConfig,
    keys: Sequence[str],
    decoded: Sequence[Mapping[str, Array]],
) -> Views:
    """The views that scores are an expectation over; a function of seed and key alone."""
    samples = list(zip(keys, decoded, strict=True))
    batches = [
        decoder.collate([decoder.views(key, own, scoring.seed, view) for key, own in samples])
        for view in range(scoring.views)
    ]
    return Views(batches, batches[0].present(decoder.names))


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
        given = run.design.checkpoints()
        # An adapter brings its own architecture, and so its own way to prepare inputs.
        self._of_others = {
            number: on_device(_adapted(run, model_id), device)
            for number, model_id in enumerate(chosen)
            if is_adapter(given.get(model_id, ""))
        }
        self._own = [number for number in range(self.count) if number not in self._of_others]
        self._placed = None
        if self._own:
            loaded = (_loaded(run, chosen[number]) for number in self._own)
            at_once = run.config.resources.score.models_on_device
            self._placed = placed(loaded, len(self._own), at_once, partial(_built, run), device)
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
        for numbers, models in self._turns():
            for view, batch in enumerate(moved):
                for name, rows, raw in _pieces(batch, self.device):
                    features = models[0].prepare({name: raw})
                    for number, model in zip(numbers, models, strict=True):
                        embedded = model.embed(features)[name]
                        out[number, view, rows, names.index(name), : model.dim] = embedded
        return out

    def _turns(self) -> Iterator[tuple[Sequence[int], Sequence[ContrastiveModel]]]:
        """Models that prepare their inputs alike, with their numbers."""
        if self._placed is not None:
            for places, models in self._placed.turns():
                yield [self._own[place] for place in places], models
        for number, model in self._of_others.items():
            yield [number], [model]

    def agreements(self, views: Views, means: Tensor) -> list[Agreement]:
        """Agreement matrices of B samples under each model, on the CPU.

        Args:
            means: (M, n, d), held-out mean vectors.

        Raises:
            SampleError: An embedding has no direction.
        """
        present, embedded = views.present.to(self.device), self.embed(views)
        require_directions(embedded, present)
        found = [
            agreement(of_model, present, mean)
            for of_model, mean in zip(embedded, means.to(self.device), strict=True)
        ]
        alignment = torch.stack([a.alignment for a in found]).cpu()
        uniformity = torch.stack([a.uniformity for a in found]).cpu()
        by_view = torch.stack([a.cmc_by_view for a in found if a.cmc_by_view is not None]).cpu()
        return [Agreement(*one) for one in zip(alignment, uniformity, by_view, strict=True)]


def require_directions(embedded: Tensor, present: Tensor) -> None:
    """Raise SampleError if an embedding is NaN, infinite or 0: no cosine can be taken of it.

    Args:
        embedded: (M, V, B, n, d); what stands in the place of an absent modality is ignored.
        present: (B, n).
    """
    squares = embedded.square().sum(dim=-1)
    # NaN compares as false.
    unfit = (~((squares > 0) & (squares < torch.inf)) & present).any(dim=1)
    if unfit.any():
        model, row, place = unfit.nonzero()[0].tolist()
        if bool((squares[model, :, row, place] == 0).any()):
            raise SampleError(
                f"a vector is 0 and has no direction (model {model:03d})", "zero_vector", "score"
            )
        raise SampleError(f"a vector is NaN or infinite (model {model:03d})", "not_finite", "score")


def _loaded(run: Run, model_id: str) -> ContrastiveModel:
    given = run.design.checkpoints().get(model_id)
    model = _built(run)
    if given is None:
        run.model_folder(model_id).load_into(model)
    else:
        load_weights(model, read_weights(run.storage, given), given)
    return model


def _built(run: Run) -> ContrastiveModel:
    model = build_model(run.config.model, run.decoder.modalities, seed=0, weights=False)
    return _for_scoring(run, model)


def _adapted(run: Run, model_id: str) -> ContrastiveModel:
    name = run.design.checkpoints()[model_id]
    own: dict[str, object] = {
        "adapter": name,
        "init": None,
        "freeze": [],
        "dim": adapter(name, run.config.model.allow).describe().dim,
    }
    config = run.config.model.model_copy(update=own)
    return _for_scoring(run, build_model(config, run.decoder.modalities, seed=0))


def _for_scoring(run: Run, model: ContrastiveModel) -> ContrastiveModel:
    model.precision = run.config.scoring.precision
    return model.requires_grad_(requires_grad=False).eval()


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
