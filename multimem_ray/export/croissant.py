"""Croissant metadata (mlcommons.org/croissant/1.0) for a Parquet file of scores, with RAI fields.

The file is a ``FileObject`` with its SHA-256, and each column a field of one record set. What the
vocabulary for responsible AI (mlcommons.org/croissant/RAI/1.0) asks for is told as far as a run
knows it: how the scores came about, what has none, and what they must not be taken for.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pyarrow as pa

from multimem_ray.export.card import Findings
from multimem_ray.export.tables import TableFile
from multimem_ray.foreign_text import line

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CITE = (
    "@inproceedings{multimem, title={MultiMem: Measuring and Mitigating Memorization in "
    "Multi-Modal Contrastive Learning}, booktitle={ECCV}, year={2026}, "
    "note={arXiv 2606.22220}}"
)
USE = (
    "To find samples that a contrastive model learned by heart: to look at, to leave out of the "
    "next training, and to answer requests about single samples."
)
PERSONAL = (
    "Keys, URLs and labels are as they stand in the shards and may point to persons. Whoever has "
    "the scores knows which samples a membership attack tells most easily."
)
_MEANINGS = {
    "key": "key of the sample",
    "shard": "path or URL of its shard",
    "index": "its position in the shard",
    "modalities": "which it has",
    "multimem": "memorization: mean consistency of models that saw it minus of those that did not",
    "multimem_low": "lower end of the 95 % interval",
    "multimem_high": "upper end of the 95 % interval",
    "multimem_q": "q-value against not memorized at all",
    "multimem_shrunk": "the score that is expected of very many models",
    "cmc_out": "consistency under models that did not see it",
    "attack_rmia": "risk under a membership attack; 0.5 is chance",
}


def croissant(found: Findings, file: TableFile, about: dict[str, Any]) -> dict[str, Any]:
    """The JSON-LD document.

    Args:
        found: What the run tells.
        file: The Parquet file, in the folder of the document.
        about: ``name`` of the data set, and ``license``, ``url`` and ``datePublished`` where they
            are known.
    """
    name = file.url.rsplit("/", 1)[-1]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": about["name"],
        "description": " ".join([*found.audited, *found.method, *found.results]),
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "citeAs": CITE,
        "version": "1.0.0",
        **{k: about[k] for k in ("license", "url", "datePublished") if about.get(k)},
        **_responsible(found),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": name,
                "contentSize": f"{file.size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file.sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "scores",
                "name": "scores",
                "description": f"{file.rows} scored samples",
                "field": [_field(column, name) for column in file.schema],
            }
        ],
    }


def _responsible(found: Findings) -> dict[str, Any]:
    versions = found.run.get("versions") or {}
    tools = [f"multimem_ray {metadata.version('multimem-ray')}"]
    tools += [f"{name} {versions[name]}" for name in ("torch", "ray") if name in versions]
    missing = found.missing
    return {
        "rai:dataCollection": " ".join(found.audited),
        "rai:dataAnnotationProtocol": " ".join(found.method),
        "rai:dataAnnotationAnalysis": found.results,
        "rai:machineAnnotationTools": tools,
        "rai:dataCollectionMissingData": "; ".join(missing) if missing else "nothing",
        "rai:dataLimitations": found.limits,
        "rai:dataUseCases": USE,
        "rai:personalSensitiveInformation": PERSONAL,
    }


def _field(column: pa.Field, file: str) -> dict[str, Any]:
    kind, many = column.type, False
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, many = kind.value_type, True
    told = {
        "@type": "cr:Field",
        "@id": f"scores/{column.name}",
        "name": line(column.name),
        "description": _MEANINGS.get(column.name, "see docs/run-folder.md of multimem_ray"),
        "dataType": _type(kind),
        "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
    }
    return told | ({"repeated": True} if many else {})


def _type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
