"""Opening a run on stored embeddings: what there is, and how it fits together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from multimem_ray.config import Config, EmbeddingsConfig, EmbeddingSet, ModelConfig, digest, nearest
from multimem_ray.design import make_design
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.recorded import load_manifest
from multimem_ray.embeddings.sets import Columns, Piece, find_pieces
from multimem_ray.embeddings.units import Units, make_units
from multimem_ray.errors import ConfigError, DesignError
from multimem_ray.run import Run, Shards
from multimem_ray.storage import Storage

_LABELS = ("label", "class_label")


@dataclass(frozen=True)
class StoredShards(Shards):
    """Units in the place of shards.

    Args:
        units: What lies behind each of them.
    """

    units: Units = field(kw_only=True)


def inspect_stored(config: Config, absolute: Callable[[str], str]) -> tuple[Run, StoredShards]:
    """What :func:`multimem_ray.setup.inspect` does, for embeddings.

    Args:
        config: With absolute paths.
        absolute: Makes a path absolute.

    Raises:
        ConfigError: The sets do not fit together, or to the configuration.
    """
    storage, given = Storage(config.storage), config.data.embeddings
    if given is None:
        raise ConfigError("data.embeddings: not given")
    sets, pool_below = _sets(given, storage, absolute)
    expected = len(make_design(config.design, storage).model_ids())
    if expected != len(sets):
        raise ConfigError(
            f"the design is one of {expected} models, and data.embeddings has {len(sets)} models"
        )
    if config.held_out.shards is not None:
        raise ConfigError(
            "held_out.shards: there are no shards; name a column or a file of keys in "
            "data.embeddings.held_out"
        )
    wanted = Columns(given.key, config.data.fields)
    pieces = [find_pieces(item, wanted, storage, absolute) for item in sets]
    names = _modalities(config.data.fields, pieces)
    shapes = [_shape(of_model, names, given.views) for of_model in pieces]
    there = [set(of_model[0].columns) for of_model in pieces]
    label = _label(config.data.label, there)
    _require(config.design.group, there, "design.group")
    _require_partition(config.scoring.partition_by, label)
    flag = _flag(given, there)
    fields = {name: config.data.fields.get(name, name) for name in names}
    identity = _identity(given.key, label, config.design.group, flag, config.held_out.balance)
    columns = [{**identity, **fields} for _ in sets]
    units = make_units(
        pieces,
        columns,
        [width for width, _ in shapes],
        [views for _, views in shapes],
        flag is not None,
        len(names),
    )
    if pool_below < 1.0 and units.spec.buckets:
        raise DesignError(
            "design.pool_shards: who trained on what depends on the shard, and some files of the "
            "models do not stand alike; complete them with `multimem embed`"
        )
    config = _settled(config, given, sets, shapes)
    urls = [url for unit in units.units for url in [unit.info.url, *(p.url for p in unit.places)]]
    run = Run(config, fields, label, frozenset(), digest([urls, units.spec.join]), pool_below)
    _ = run.design, run.held_out_rule
    return run, StoredShards(tuple(unit.info for unit in units.units), (), (), units=units)


def _require_partition(by: str | None, label: str | None) -> None:
    if by is not None and (by.startswith("json.") or (by == "label" and label is None)):
        raise ConfigError(
            f"scoring.partition_by: '{by}' is not among what is known of stored embeddings; use "
            "label (with data.label) or group (with design.group)"
        )


def _sets(
    given: EmbeddingsConfig, storage: Storage, absolute: Callable[[str], str]
) -> tuple[list[EmbeddingSet], float]:
    """The set of each model, and where the pool of shards ends."""
    if not given.run:
        return list(given.models), 1.0
    run = absolute(given.run)
    manifest = load_manifest(run, storage)
    folders = [storage.join(run, layout.FOLDER, f"model={m}") for m in manifest["models"]]
    sets = [EmbeddingSet.model_validate({"files": folder}) for folder in folders]
    return sets, float(manifest["pool_below"])


def _modalities(fields: Mapping[str, str], pieces: Sequence[Sequence[Piece]]) -> list[str]:
    for number, of_model in enumerate(pieces):
        if not of_model:
            raise ConfigError(f"data.embeddings.models: the files of model {number} are empty")
    if fields:
        names = sorted(fields)
    else:
        every = [set(piece.widths) for of_model in pieces for piece in of_model]
        names = sorted(set.intersection(*every))
    if len(names) < 2:
        found = sorted({name for of_model in pieces for p in of_model for name in p.widths})
        raise ConfigError(
            "data.embeddings: fewer than two modalities are in the embeddings of all models (found "
            f"{', '.join(found) or 'none'}); name their columns in data.fields"
        )
    return names


def _shape(pieces: Sequence[Piece], names: Sequence[str], views: int) -> tuple[int, int]:
    """Numbers of a row and views, the same in all files and modalities of a model."""
    first = pieces[0]
    told = first.about.views if first.about is not None else views
    told = first.array_views or told
    width = next((p.widths[n] for p in pieces for n in names if p.widths[n]), 0)
    for piece in pieces:
        for name in names:
            # 0: the column has no vector at all
            if piece.widths[name] not in {0, width}:
                raise ConfigError(
                    f"{piece.file.url}: {name} has {piece.widths[name]} numbers, {names[0]} in "
                    f"{first.file.url} {width}; the vectors of a model must be of one space"
                )
    if not width or width % told:
        raise ConfigError(
            f"data.embeddings.views: {first.file.url} has {width} numbers in a row, which are not "
            f"{told} views of equal length"
        )
    return width, told


def _label(label: str | None, there: Sequence[set[str]]) -> str | None:
    if label is not None:
        _require(label, there, "data.label")
        return label
    return next((name for name in _LABELS if any(name in found for found in there)), None)


def _require(column: str | None, there: Sequence[set[str]], key: str) -> None:
    known = set.union(*there)
    if column is not None and column not in known:
        raise ConfigError(f"{key}: no embeddings have a column '{column}'{nearest(column, known)}")


def _flag(given: EmbeddingsConfig, there: Sequence[set[str]]) -> str | None:
    """The column that tells what is held out; None where a rule or list does."""
    known = set.union(*there)
    if given.held_out is None:
        return layout.HELD_OUT if layout.HELD_OUT in known else None
    return given.held_out if given.held_out in known else None


def _identity(
    key: str, label: str | None, group: str | None, flag: str | None, balance: str | None
) -> dict[str, str]:
    if balance is not None and balance != label:
        raise ConfigError(
            f"held_out.balance: '{balance}' is not the label; stored embeddings are balanced by "
            "data.label only"
        )
    named = {
        layout.KEY: key,
        layout.INDEX: layout.INDEX,
        layout.LABEL: label,
        layout.GROUP: group,
        layout.HELD_OUT: flag,
    }
    return {name: column for name, column in named.items() if column is not None}


def _settled(
    config: Config,
    given: EmbeddingsConfig,
    sets: Sequence[EmbeddingSet],
    shapes: Sequence[tuple[int, int]],
) -> Config:
    """The configuration with what was found in the place of settings that do not apply."""
    dims: Mapping[str, int] = {"dim": max(width // views for width, views in shapes)}
    model = ModelConfig.model_validate({"preset": None, **dims})
    embeddings = given.model_copy(update={"models": list(sets)})
    return config.model_copy(
        update={
            "model": model,
            "data": config.data.model_copy(update={"embeddings": embeddings}),
            "scoring": config.scoring.model_copy(
                update={"views": max(views for _, views in shapes)}
            ),
        }
    )


def store_units(run: Run, shards: Shards) -> None:
    """Write what the workers must know of the units."""
    if isinstance(shards, StoredShards):
        shards.units.store(run)
