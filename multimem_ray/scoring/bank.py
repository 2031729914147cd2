"""The bank in scoring: M reference models in one process, one decode for all of them.

A batch is moved to the device once, as the integers it was decoded to. Its views are made there,
all of a sample at once, prepared once, and embedded by every model. Models that don't fit on the
device wait in host memory and take turns (:mod:`multimem_ray.scoring.offload`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from multimem_ray.errors import SampleError
from multimem_ray.metric import Agreement, agreement
from multimem_ray.modalities.batch import DecodedBatch
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
        self._shapes = {one.name: one.spec.shape for one in run.decoder.modalities}
        self.dim = max([*dims, run.config.model.dim] if self._own else dims)

    @torch.inference_mode()
    def embed(self, decoded: DecodedBatch) -> Tensor:
        """Embeddings of all models: (M, V, B, n, d) float32; zero where a modality is absent.

        d is the most that a model has; those with fewer dimensions are zero in the others, which
        changes no product of two embeddings.
        """
        names = self.run.modalities
        shape = (self.count, decoded.views, decoded.size, len(names), self.dim)
        out = torch.zeros(*shape, device=self.device)
        moved = decoded.to(self.device)
        for numbers, models in self._turns():
            for name in moved.rows:
                for part in self._parts(name, moved):
                    # All views of the samples go through a model at once.
                    views = self.run.decoder.views_of(name, moved, part)
                    features = models[0].prepare({name: views.flatten(0, 1)})
                    rows, place = moved.rows[name][part].to(self.device), names.index(name)
                    for number, model in zip(numbers, models, strict=True):
                        embedded = model.embed(features)[name].view(*views.shape[:2], model.dim)
                        out[number, :, rows, place, : model.dim] = embedded.transpose(0, 1)
        return out

    def _parts(self, name: str, decoded: DecodedBatch) -> Iterator[slice]:
        """Which samples go through a model at once; on a CPU those that its cache can hold."""
        count = len(decoded.rows[name])
        size = count
        if self.device.type == "cpu":
            floats = 4 * math.prod(self._shapes[name])
            size = max(8, _CPU_FEATURE_BYTES // floats) // decoded.views or 1
        for at in range(0, count, size):
            yield slice(at, at + size)

    def _turns(self) -> Iterator[tuple[Sequence[int], Sequence[ContrastiveModel]]]:
        """Models that prepare their inputs alike, with their numbers."""
        if self._placed is not None:
            for places, models in self._placed.turns():
                yield [self._own[place] for place in places], models
        for number, model in self._of_others.items():
            yield [number], [model]

    def agreements(self, decoded: DecodedBatch, means: Tensor) -> list[Agreement]:
        """Agreement matrices of B samples under each model, on the CPU.

        Args:
            means: (M, n, d), held-out mean vectors.

        Raises:
            SampleError: An embedding has no direction.
        """
        present = decoded.present(self.run.modalities).to(self.device)
        embedded = self.embed(decoded)
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


def pick_device(gpus: float) -> torch.device:
    """The GPU that Ray gave to this actor, or the CPU where none was asked for."""
    return torch.device("cuda") if gpus and torch.cuda.is_available() else torch.device("cpu")
