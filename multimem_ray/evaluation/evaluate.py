"""Evaluates every reference model of a run on its held-out samples.

The held-out set is small and lies in few shards (that is how it was chosen), so one process reads
it; it is embedded once by all models, on the GPU where there is one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.evaluation.probe import linear_probe
from multimem_ray.evaluation.retrieval import retrieval
from multimem_ray.evaluation.zero_shot import class_vectors, prompts, zero_shot
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.progress import Progress
from multimem_ray.results.planted import read_truth
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out_plan import load_plan

_TEXT = "text"


@dataclass(frozen=True)
class HeldOutEmbeddings:
    """Clean embeddings of the held-out samples.

    Attributes:
        vectors: (M, N, n, d) float32 on the CPU; zero where a modality is absent.
        present: (N, n) bool.
        labels: (N,), empty strings where there is none.
    """

    vectors: Tensor
    present: NDArray[np.bool_]
    labels: NDArray[np.str_]


def evaluate(run: Run, progress: Progress) -> dict[str, Any]:
    """Retrieval, linear probes and zero-shot classification for every model; see the settings.

    Returns:
        ``samples``, ``models`` (per id: ``retrieval``, ``probe`` and ``zero_shot`` by modality)
        ``mean`` over the models of each figure with its standard error over models, and
        ``left_out``: sentences on what could not be measured. Written to ``evaluation.json``.

    Raises:
        HeldOutError: The held-out set was not chosen yet, or none of it can be used.
        ModelError: A model is missing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bank = ScoringBank(run, device)
    held_out = embed_held_out(run, bank, progress)
    classes = sorted({str(label) for label in held_out.labels if label})
    by_class = _class_vectors(run, bank, classes) if len(classes) > 1 else None
    models: dict[str, Any] = {}
    ids = run.design.model_ids()
    with progress.task("evaluate", len(ids), unit="models") as shown:
        for number, model_id in enumerate(ids):
            vectors = by_class[number] if by_class is not None else None
            models[model_id] = _one_model(run, held_out, number, classes, vectors)
            shown.update(number + 1)
    result = {
        "samples": len(held_out.present),
        "settings": run.config.evaluation.model_dump(mode="json"),
        "models": models,
        "mean": _means(models),
        "left_out": _left_out(run, held_out, classes, by_class),
    }
    text = json.dumps(result, indent=1).encode()
    run.storage.write_atomic(run.path("evaluation.json"), text)
    return result


def embed_held_out(run: Run, bank: ScoringBank, progress: Progress) -> HeldOutEmbeddings:
    """Embed the clean view of every held-out sample with every model."""
    wanted = _aligned(run, _held_out_keys(run))
    total = sum(len(keys) for keys in wanted.values())
    parts: list[Tensor] = []
    presents: list[NDArray[np.bool_]] = []
    labels: list[str] = []
    pending: list[dict[str, Array]] = []

    def flush() -> None:
        if pending:
            batch = run.decoder.clean(pending)
            parts.append(_embed(bank, batch))
            presents.append(batch.present(run.modalities).numpy())
            pending.clear()

    with progress.task("embed held-out set", total, unit="samples") as shown:
        for shard, keys in sorted(wanted.items()):
            for item in run.read(shard):
                if not isinstance(item, Sample) or item.key not in keys:
                    continue
                try:
                    pending.append(run.decoder.decode(item))
                except SampleError:
                    continue  # it is no part of the held-out means either
                labels.append(run.label_of(item) or "")
                if len(pending) == run.config.scoring.batch_size:
                    flush()
                    shown.update(len(labels))
        flush()
    if not parts:
        raise HeldOutError(f"{run.output}: none of {total} held-out samples can be used")
    return HeldOutEmbeddings(torch.cat(parts, dim=1), np.concatenate(presents), np.array(labels))


def _embed(bank: ScoringBank, batch: DecodedBatch) -> Tensor:
    """(M, B, n, d), of one view."""
    return bank.embed(batch)[:, 0].cpu().clone()


def _held_out_keys(run: Run) -> dict[str, set[str]]:
    wanted = {chosen.shard: set(chosen.keys) for chosen in load_plan(run)}
    if not wanted:
        raise HeldOutError(
            f"{run.output}: what is held out was not settled under this configuration; run "
            "`multimem audit` or `multimem score` first"
        )
    return wanted


def _aligned(run: Run, wanted: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without what is known to be misaligned: no model can be right about it."""
    url = run.config.data.planted
    if url is None:
        return wanted
    truth = read_truth(url, run.storage, run.shard_parts)
    return {
        shard: {key for key in keys if (run.shard_name(shard), key) not in truth}
        for shard, keys in wanted.items()
    }


def _one_model(
    run: Run,
    held_out: HeldOutEmbeddings,
    number: int,
    classes: Sequence[str],
    vectors: Tensor | None,
) -> dict[str, Any]:
    settings = run.config.evaluation
    names = run.modalities
    embedded = {name: held_out.vectors[number, :, i] for i, name in enumerate(names)}
    present = {name: held_out.present[:, i] for i, name in enumerate(names)}
    result: dict[str, Any] = {
        "retrieval": retrieval(embedded, present, settings.ks, settings.seed),
        "probe": {},
        "zero_shot": {},
    }
    for name in names:
        known = present[name] & (held_out.labels != "")
        if not known.any():
            continue
        rows, labels = embedded[name][torch.from_numpy(known)], held_out.labels[known]
        probe = linear_probe(rows.numpy(), labels, settings.folds, settings.seed)
        if probe is not None:
            result["probe"][name] = probe
        if vectors is not None and name != _TEXT:
            result["zero_shot"][name] = zero_shot(rows, labels, classes, vectors, settings.seed)
    return result


def _left_out(
    run: Run, held_out: HeldOutEmbeddings, classes: Sequence[str], by_class: Tensor | None
) -> list[str]:
    """What was not measured, and why; the same for every model."""
    if not classes:
        label = run.label or "data.label is not set, and no field was found"
        return [f"probes and zero-shot classification: no held-out sample has a label ({label})"]
    folds, told = run.config.evaluation.folds, []
    for place, name in enumerate(run.modalities):
        known = held_out.labels[held_out.present[:, place] & (held_out.labels != "")]
        counts = np.unique(known, return_counts=True)[1]
        enough = int((counts >= folds).sum())
        if enough < 2:
            told.append(
                f"probe of {name}: {enough} of {len(counts)} labels have the {folds} held-out "
                "samples that evaluation.folds asks for, and it takes two; raise held_out.fraction "
                "or lower evaluation.folds"
            )
    if by_class is None:
        why = "no text modality" if len(classes) > 1 else f"one label, {classes[0]!r}"
        told.append(f"zero-shot classification: {why}")
    return told


def _class_vectors(run: Run, bank: ScoringBank, classes: Sequence[str]) -> Tensor | None:
    """(M, C, d), the prompts of each class under each model; None without a text modality."""
    text = next((m for m in run.decoder.modalities if m.name == _TEXT), None)
    if text is None:
        return None
    settings = run.config.evaluation
    words = [settings.class_names.get(label, label) for label in classes]
    per_class = [prompts(word, settings.templates) for word in words]
    decoded = [{_TEXT: text.decode(p)} for group in per_class for p in group]
    place = run.modalities.index(_TEXT)
    embedded = _embed(bank, run.decoder.clean(decoded))[:, :, place]
    models, _, dim = embedded.shape
    grouped = embedded.view(models, len(classes), -1, dim)
    return torch.stack([class_vectors(one) for one in grouped])


def _means(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each figure's mean over the models, with the standard error over models."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for found in models.values():
        for row in found["retrieval"]:
            direction = f"{'+'.join(row['query'])} → {row['target']}"
            for k, estimate in row["recall"].items():
                values[f"R@{k}", direction].append(estimate["value"])
        for task in ("probe", "zero_shot"):
            for name, estimate in found[task].items():
                values[task, name].append(estimate["value"])
    return [
        {
            "task": task,
            "of": of,
            "mean": float(np.mean(found)),
            "se": float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else None,
            "models": len(found),
        }
        for (task, of), found in values.items()
    ]
