"""The audit by a cheaper model beside that of the given one; see ``design.proxy``.

It is an ordinary run in the folder ``proxy`` of the output: the same samples, held-out set and
training; other halves and other views, so that the errors of its scores have nothing to do with
those of the full models.
"""

from __future__ import annotations

from typing import Any

from multimem_ray.config import Config
from multimem_ray.errors import ConfigError
from multimem_ray.models.presets import preset_defaults
from multimem_ray.run import Run
from multimem_ray.setup.configuration import resolve

FOLDER = "proxy"
SMALLER = "smaller"


def proxy_config(run: Run) -> Config:
    """The configuration of the proxies of an opened run.

    Raises:
        ConfigError: The model cannot be made smaller, or there is no such preset.
    """
    config = run.config
    raw = config.model_dump(mode="json")
    raw["output"] = run.path(FOLDER)
    raw["data"]["fields"] = dict(run.fields)
    raw["design"] |= {
        "models": config.design.proxy_models,
        "draw": config.design.draw + 1,
        "group": config.design.group or "key",
        **dict.fromkeys(("proxy", "reliability", "budget_hours", "max_models")),
    }
    raw["scoring"]["seed"] += 1
    raw["report"]["title"] = config.report.title or "Audit by proxies"
    if config.design.proxy == SMALLER:
        raw["model"]["towers"] = _narrower_towers(run)
    else:
        raw |= _of_preset(str(config.design.proxy), run)
    return resolve(raw)


def _narrower_towers(run: Run) -> dict[str, Any]:
    from multimem_ray.models.towers.narrower import narrower

    model = run.config.model
    if model.adapter is not None or model.init is not None:
        key = "model.adapter" if model.adapter is not None else "model.init"
        raise ConfigError(
            "design.proxy: smaller makes towers narrower that start from random weights, and "
            f"{key} gives others; name a preset as the proxy"
        )
    return {
        modality.name: narrower(modality.name, modality.spec, model.towers.get(modality.name, {}))
        for modality in run.decoder.modalities
    }


def _of_preset(name: str, run: Run) -> dict[str, Any]:
    try:
        given = preset_defaults(name)
    except ConfigError as error:
        reason = str(error).removeprefix("model.preset: ")
        raise ConfigError(f"design.proxy: {reason}, or {SMALLER}") from error
    embedded = given["model"].get("modalities") or list(run.modalities)
    absent = sorted(set(embedded) - set(run.modalities))
    if absent:
        raise ConfigError(
            f"design.proxy: {name} embeds {', '.join(absent)}, which this run does not; choose "
            f"another preset, or {SMALLER}"
        )
    modalities = run.config.model_dump(mode="json")["modalities"]
    return {
        "model": {"preset": name, "modalities": sorted(embedded)},
        "modalities": modalities | given.get("modalities", {}),
    }
