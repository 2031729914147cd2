"""The first configuration for some shards: what was found in them, and what to decide, in words."""

from __future__ import annotations

import json

from rich.filesize import decimal

from multimem_ray.foreign_text import line
from multimem_ray.models.presets import preset_description, preset_names
from multimem_ray.setup.configuration import resolve
from multimem_ray.setup.discovery import inspect


def first_config(shards: str, output: str, endpoint_url: str | None = None) -> str:
    """A commented configuration in YAML, from a look into a few of the shards.

    Args:
        shards: As ``data.shards`` takes them.
        output: Of the audit.
        endpoint_url: Of an S3-compatible store; default AWS.

    Raises:
        ShardNotFoundError: There is none.
        ConfigError: Nothing in them can be audited.
    """
    raw: dict[str, object] = {"output": output, "data": {"shards": shards}}
    if endpoint_url:
        raw["storage"] = {"endpoint_url": endpoint_url}
    run, found = inspect(resolve(raw))
    size = decimal(sum(shard.size for shard in found.scored))
    lines = [
        f"# An audit of {len(found.scored)} shards, {size}. What it would take:",
        "#   multimem plan --probe THIS_FILE",
        f"output: {_text(output)}",
        "data:",
        f"  shards: {_text(shards)}",
        "  fields:  # modality: extension of its member, or json.FIELD",
        *(f"    {name}: {_text(field)}" for name, field in sorted(run.fields.items())),
    ]
    lines += [f"  # {_comment(warning)}" for warning in found.warnings]
    lines += [
        f"  label: {_text(run.label)}  # for reports, probes and zero-shot classification"
        if run.label
        else "  # label: json.FIELD  # none was found; for reports and probes"
    ]
    if endpoint_url:
        lines += ["storage:", f"  endpoint_url: {_text(endpoint_url)}"]
    lines += [
        "held_out:",
        "  fraction: 0.05  # no model trains on these; a few hundred samples are enough",
        "design:",
        "  models: 4  # 2 rank, 4 give intervals, 8 lists; auto: until the ranking is reliable",
        "  group: content  # copies are left out together; or json.FIELD, or a table of groups",
        "model:",
        "  preset: tiny  # one of:",
        *(f"  #   {name}: {_comment(preset_description(name))}" for name in preset_names()),
        "training:",
        "  recipe: full  # economy: rankings about as true at two thirds of the cost",
        "  # epochs: the preset's; as many as the model in question saw",
        "scoring:",
        "  views: 4  # of each sample",
        "resources:",
        "  train: {gpus: 0}  # of each bank of models; 1 where there are GPUs",
        "  score: {gpus: 0}  # of each scoring process",
    ]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """A YAML scalar: JSON's strings are YAML's."""
    return json.dumps(value, ensure_ascii=False)


def _comment(value: str) -> str:
    return " ".join(line(value).split())
