"""From the section ``design`` to a rule or given models, and a target beside either."""

from __future__ import annotations

from multimem_ray.config import DesignConfig
from multimem_ray.design.given import Given
from multimem_ray.design.membership import Design, make_rule
from multimem_ray.design.target import Targeted
from multimem_ray.storage import Storage


def make_design(config: DesignConfig, storage: Storage | None = None) -> Design:
    """The design that the configuration asks for.

    Args:
        config: The section ``design``.
        storage: Where the lists of a given design lie.

    Raises:
        DesignError: The design cannot work with these settings.
    """
    design = Given(config, storage) if config.kind == "given" else make_rule(config)
    return design if config.target is None else Targeted(config, design, storage)
