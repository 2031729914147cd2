"""Samples that a file is like: embedded by a model of the run, compared with its stored embeddings.

The file is shown to the model in several random views, as samples are, and the mean of their
embeddings is compared by the cosine with the mean of each sample's. Embeddings are read as a
stream; the nearest are kept. Whether the nearest is *alike* no cosine says by itself: half of all
samples, and 999 in 1,000, are less like the file than the two values told with the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import EmbeddingSet
from multimem_ray.design.shard_names import tail
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.files import read_blocks, vectors
from multimem_ray.embeddings.sets import Columns, Piece, find_pieces
from multimem_ray.errors import ConfigError
from multimem_ray.lookup.find import Asked, Finder, Lookup
from multimem_ray.modalities import registry
from multimem_ray.modalities.decoder import decode_one
from multimem_ray.progress import Progress
from multimem_ray.results.statistics import QuantileSketch
from multimem_ray.run import Run, load_run
from multimem_ray.storage import Storage

Floats = NDArray[np.float32]
VIEWS = 8
_ROWS = 4096


@dataclass(frozen=True)
class Near:
    """A sample and how like the file it is: the cosine, from -1 to 1."""

    key: str
    shard: str | None
    similarity: float


def similar(
    output: str,
    file: str,
    *,
    modality: str | None = None,
    model: str | None = None,
    n: int = 10,
    storage: Storage | None = None,
    progress: Progress | None = None,
) -> Lookup:
    """What a run knows of the samples that a file is most like.

    Args:
        output: Folder or ``s3://`` prefix of a run whose samples were embedded (`multimem embed`).
        file: Picture, sound, clip or text.
        modality: What it is; by default what its name says.
        model: Id of the model that embeds; by default the first that is trained.
        n: How many samples.
        storage: How to reach run and file.
        progress: Told while embeddings are read.

    Returns:
        Matches as of :func:`~multimem_ray.lookup.find.lookup`, each with ``similarity``, the most
        like first.

    Raises:
        ConfigError: The run has no models or no embeddings, or not of that modality.
        DecodeError: The file cannot be decoded.
        StorageError: Something cannot be read.
    """
    storage, progress = storage or Storage(), progress or Progress()
    run = _opened(output, storage)
    name = _modality(run, file, modality)
    chosen = _model(run, model)
    asked = _embedded(run, chosen, name, _content(run, file, storage), file)
    near, spread = _nearest(run, chosen, name, asked, n, storage, progress)
    places = [(Asked(f"{file} {at}"), one.key, one.shard) for at, one in enumerate(near)]
    finder = Finder(output, storage)
    matches, met = finder.matches(places)
    parts = run.shard_parts
    of = {(tail(one.shard or "", parts), one.key): one.similarity for one in near}
    told = []
    for match in matches:
        place = (tail(match["shard"] or "", parts), match["key"])
        score = of.get(place, of.get(("", match["key"])))
        told.append({**match, "query": file, "similarity": score})
    lost = [one.key for query, one in zip(places, near, strict=True) if query[0] not in met]
    notes = [_spread_words(spread, name, chosen), *finder.notes([])]
    if lost:
        notes.append(f"embedded, but not in the run's scores, errors or held-out set: {lost}")
    return Lookup("like", told, [], notes)


def _opened(output: str, storage: Storage) -> Run:
    """The run as it lies in this folder, wherever it was made."""
    run = Run.from_json(load_run(output, storage))
    if run.is_stored:
        raise ConfigError(
            f"{output}: was scored from stored embeddings, so there is no model here to embed a "
            "file with; ask by key"
        )
    if not storage.exists(storage.join(output, layout.FOLDER, layout.MANIFEST)):
        raise ConfigError(
            f"{output}: no embeddings of its samples to compare with; `multimem embed CONFIG` "
            "writes them"
        )
    registry.load_plugins(run.config.data.plugins)
    config = run.config.model_copy(update={"output": output, "storage": storage.config})
    return replace(run, config=config)


def _modality(run: Run, file: str, asked: str | None) -> str:
    if asked is not None:
        if asked not in run.modalities:
            raise ConfigError(f"--modality {asked}: the run has {', '.join(run.modalities)}")
        return asked
    extension = file.rsplit(".", 1)[-1].lower()
    known = [name for name in run.modalities if extension in registry.get(name).extensions]
    if not known:
        raise ConfigError(
            f"{file}: its ending says of none of {', '.join(run.modalities)} that it is one; give "
            "--modality"
        )
    return known[0]


def _model(run: Run, asked: str | None) -> str:
    ids = run.design.model_ids()
    if asked is not None:
        if asked not in ids:
            raise ConfigError(f"--model {asked}: the run has {', '.join(ids)}")
        return asked
    trained = next((one for one in ids if run.is_trained(one)), None)
    if trained is None:
        raise ConfigError(f"{run.output}: none of its models is there to embed the file with")
    return trained


def _content(run: Run, file: str, storage: Storage) -> bytes:
    name, most = run.config.data.limits.bytes_of(file.rsplit(".", 1)[-1].lower())
    size = storage.info(file).size
    if size > most:
        raise ConfigError(f"{file}: {size:,} bytes, beyond data.limits.{name} = {most:,}")
    return storage.read_bytes(file)


def _embedded(run: Run, model: str, name: str, data: bytes, file: str) -> Floats:
    """(d,) the mean of the file's views under a model, of length 1."""
    import torch

    from multimem_ray.scoring.bank import ScoringBank

    decoder, place = run.decoder, run.modalities.index(name)
    own = next(one for one in decoder.modalities if one.name == name)
    decoded, seed = [{name: decode_one(own, data)}], run.config.scoring.seed
    batch = decoder.stacked([""], decoded, seed, range(VIEWS), "similar")
    bank = ScoringBank(run, torch.device("cpu"), [run.design.model_ids().index(model)])
    told = bank.embed(batch)[0, :, 0, place]
    mean: Floats = _mean_direction(told.numpy()[None])[0]
    if not np.isfinite(mean).all() or not mean.any():
        raise ConfigError(f"{file}: model {model} makes no direction of it")
    return mean


def _mean_direction(views: Floats) -> Floats:
    """(B, d) of length 1, from (B, V, d); zeros where there is none."""
    length = np.linalg.norm(views, axis=-1, keepdims=True)
    mean = (views / np.maximum(length, 1e-12)).mean(1)
    told: Floats = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
    return told


def _nearest(
    run: Run, model: str, name: str, asked: Floats, n: int, storage: Storage, progress: Progress
) -> tuple[list[Near], QuantileSketch]:
    """The n samples with the largest cosine, largest first, and how all of them are spread."""
    folder = storage.join(run.output, layout.FOLDER, f"model={model}")
    item = EmbeddingSet.model_validate({"files": folder})
    pieces = find_pieces(item, Columns("key", {name: name}), storage, lambda url: url)
    best: list[Near] = []
    spread = QuantileSketch()
    with progress.task("embeddings", len(pieces), unit="files") as shown:
        for done, piece in enumerate(pieces, 1):
            for keys, shards, cosines in _compared(piece, name, asked, storage):
                spread.update(cosines.astype(np.float64))
                known = np.where(np.isnan(cosines), -np.inf, cosines)
                places = np.argsort(-known, kind="stable")[:n]
                best += [
                    Near(keys[at], shards[at], float(cosines[at]))
                    for at in places
                    if np.isfinite(known[at])
                ]
                best.sort(key=lambda one: (-one.similarity, one.shard or "", one.key))
                best = best[:n]
            shown.update(done)
    if not best:
        raise ConfigError(f"{folder}: no sample with an embedding of its {name}")
    return best, spread


def _compared(
    piece: Piece, name: str, asked: Floats, storage: Storage
) -> Iterator[tuple[list[str], Sequence[str | None], Floats]]:
    """Keys, shards and cosines (NaN without a vector) of the rows of a file."""
    views = piece.about.views if piece.about is not None else 1
    columns = {layout.KEY: layout.KEY, layout.SHARD: layout.SHARD, name: name}
    for first, end in pairwise(piece.starts):
        for block in read_blocks(storage, piece.place(first, end), columns, _ROWS):
            values, fits = vectors(block[name], piece.widths[name])
            means = _mean_direction(values.reshape(len(values), views, -1))
            if means.shape[1] != len(asked):
                raise ConfigError(
                    f"{piece.file.url}: embeddings of {means.shape[1]} numbers, and the model "
                    f"makes {len(asked)}; run `multimem embed` again"
                )
            cosines = np.where(fits, means @ asked, np.nan).astype(np.float32)
            yield block["key"].to_pylist(), block["shard"].to_pylist(), cosines


def _spread_words(spread: QuantileSketch, name: str, model: str) -> str:
    half, most = spread.quantiles((0.5, 0.999))
    return (
        f"by {name} under model {model}: of {spread.count:,} samples half are less like it than "
        f"{half:.3f}, 999 in 1,000 less than {most:.3f}"
    )
