"""How well do the scores find misalignment that was planted on purpose?

A copy of the shards in which a known few samples got a modality of another sample comes with its
truth in Parquet. Joined with the scores by shard name and key (shards may have moved since), it
tells which score finds them: MultiMem, the consistency under models that never saw the sample, or
what people use today, the consistency under one model that did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.arrow_files import READ_ERRORS, ParquetFile
from multimem_ray.design.key_list import EXAMPLES, OF_SHARD, Hashes, KeyList, hashed
from multimem_ray.design.shard_names import require_parts, tail
from multimem_ray.errors import ConfigError
from multimem_ray.results.arrays import floats
from multimem_ray.results.statistics import Bools, Floats, auroc, curve, precision
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage

METHODS = ("multimem", "cmc_out", "one_model")
FIXED_KS = (10, 50, 100)
_TRUTH = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("planted", pa.bool_()),
        ("modality", pa.string()),
    ]
)


def evaluate_planted(table: ScoreTable, truth_url: str) -> dict[str, Any]:
    """AUROC and precision at k of each score against the truth.

    Args:
        table: The scores of a run.
        truth_url: Parquet with at least ``shard``, ``key`` and ``planted``, and ``modality``.

    Returns:
        ``samples`` (scored, in the truth, and with every score defined), ``planted`` among them,
        ``unmatched`` scored samples that the truth does not list, and per method ``auroc`` with
        its interval, ``precision``, ``roc`` points and ``by_modality``. All methods are judged on
        the same samples. A score that no sample has is reported as None.

    Raises:
        ConfigError: The truth has not the columns, or lists none of the scored samples.
        StorageError: The truth cannot be read.
    """
    rows = _joined(table, truth_url)
    listed = ~np.isnan(floats(rows["planted"]))
    if len(listed) and not listed.any():
        raise ConfigError(
            f"data.planted: {truth_url} lists none of the {len(listed)} scored samples; it must be "
            "the planted.parquet that was written with these shards"
        )
    scores = {method: floats(rows[method]) for method in METHODS}
    methods = [m for m in METHODS if (listed & ~np.isnan(scores[m])).any()]
    common = listed & np.all([~np.isnan(scores[m]) for m in methods], axis=0)
    planted = floats(rows["planted"])[common] == 1.0
    modality = rows["modality"].combine_chunks().dictionary_encode()
    codes = floats(modality.indices)[common]
    names = dict(enumerate(modality.dictionary.to_pylist()))
    return {
        "samples": int(common.sum()),
        "planted": int(planted.sum()),
        "unmatched": int(len(listed) - listed.sum()),
        "methods": {
            m: _judge(planted, codes, names, scores[m][common]) if m in methods else None
            for m in METHODS
        },
    }


def read_truth(url: str, storage: Storage, parts: int = 1) -> dict[tuple[str, str], str | None]:
    """What was planted: name of the shard, and key, of the planted samples → modality.

    Args:
        parts: Parts of a shard's path that are its name.

    Raises:
        ConfigError: It is no Parquet, a column is missing, or a shard is named too briefly.
        StorageError: It cannot be read.
    """
    truth: dict[tuple[str, str], str | None] = {}
    for batch in _truth_batches(url, storage, parts):
        rows = batch.filter(pc.fill_null(batch["planted"], False))
        names = [tail(shard, parts) for shard in rows["shard"].to_pylist()]
        places = zip(names, rows["key"].to_pylist(), strict=True)
        truth.update(zip(places, rows["modality"].to_pylist(), strict=True))
    return truth


def listed_truth(url: str, storage: Storage, parts: int = 1) -> KeyList:
    """The samples of which the truth is told; see :func:`read_truth` for the rest."""
    hashes, examples = list[Hashes](), list[str]()
    for batch in _truth_batches(url, storage, parts):
        rows = batch.filter(pc.and_(batch["shard"].is_valid(), batch["key"].is_valid()))
        keys = rows["key"].to_pylist()
        names = [tail(shard, parts) for shard in rows["shard"].to_pylist()]
        few = zip(names, keys[: EXAMPLES - len(examples)], strict=False)
        examples += [f"{name}{OF_SHARD}{key}" for name, key in few]
        hashes.append(hashed(keys, names))
    every = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
    return KeyList(every, True, parts, tuple(examples))


def _truth_batches(url: str, storage: Storage, parts: int) -> Iterator[pa.RecordBatch]:
    """Batches with the columns of ``_TRUTH``; shards by at least ``parts`` of their paths."""
    try:
        with storage.open(url) as file:
            parquet = ParquetFile(file, url)
            known = set(parquet.schema_arrow.names)
            if absent := set(_TRUTH.names[:3]) - known:
                raise ConfigError(
                    f"data.planted: {url} has no column {', '.join(sorted(absent))}; it must be "
                    "the planted.parquet that `multimem plant` wrote"
                )
            for batch in parquet.iter_batches(columns=[c for c in _TRUTH.names if c in known]):
                columns = {c: batch[c].cast(_TRUTH.field(c).type) for c in batch.schema.names}
                columns.setdefault("modality", pa.nulls(batch.num_rows, pa.string()))
                named = columns["shard"].drop_null().unique().to_pylist()
                require_parts(named, parts, f"data.planted: {url}")
                yield pa.RecordBatch.from_pydict(columns, schema=_TRUTH)
    except READ_ERRORS as error:
        raise ConfigError(f"data.planted: {url} is not a Parquet file: {error}") from error


def _joined(table: ScoreTable, truth_url: str) -> pa.Table:
    """Suspicion of every scored sample by each method, and its truth where that is known.

    Samples are joined by a hash of the shard's name and the key: shards may have moved since
    planting. The order is that of the hash, so that ties don't follow the order of the files.
    """
    parts = table.shard_parts
    batches = _truth_batches(truth_url, table.storage, parts)
    first = next(batches, None)  # what is wrong with the file is told before DuckDB reads it
    truth = pa.RecordBatchReader.from_batches(_TRUTH, chain([first] if first else [], batches))
    # The one model that people would filter by is the target, or the first that saw the sample.
    one = "cmc_in" if "gap" in table.columns else "cmc[list_position(member, true)]"
    name = f"array_to_string(string_split(shard, '/')[-{parts}:], '/')"
    identity = f"hash({name}, key) AS id"
    return pa.Table.from_batches(
        table.stream(
            f"""
            WITH
                scored AS (SELECT {identity}, multimem, -cmc_out AS cmc_out,
                           -({one})::DOUBLE AS one_model FROM scores),
                truths AS (SELECT {identity}, max(planted::UTINYINT) AS planted,
                           max(modality) FILTER (planted) AS modality FROM truth GROUP BY id)
            SELECT multimem, cmc_out, one_model, planted, modality
            FROM scored LEFT JOIN truths USING (id) ORDER BY id
            """,
            ["shard", "key", "multimem", "cmc_in", "cmc_out", "cmc", "member"],
            tables={"truth": truth},
        )
    )


def _judge(
    planted: Bools, codes: Floats, names: Mapping[int, str], suspicion: Floats
) -> dict[str, Any]:
    """Figures of one method; ``codes`` tells the modality, by place in ``names``."""
    order = np.argsort(-suspicion, kind="stable")  # what follows sorts again: faster in order
    planted, codes, suspicion = planted[order], codes[order], suspicion[order]
    by_modality = []
    for code, name in sorted(names.items(), key=lambda item: item[1]):
        own = codes == code
        count = int(own.sum())
        if count:
            keep = ~planted | own
            by_modality.append(
                {"modality": name, "planted": count, **auroc(planted[keep], suspicion[keep])}
            )
    return {
        **auroc(planted, suspicion),
        "precision": precision(planted, suspicion, {int(planted.sum()), *FIXED_KS}),
        "roc": curve(planted, suspicion),
        "by_modality": by_modality,
    }
