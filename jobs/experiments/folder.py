"""The folder of a study, which takes up what was finished in it before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimem_ray.errors import ConfigError


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep a folder for results of these settings; nothing of others is taken up in it.

    Raises:
        ConfigError: It holds results of other settings.
    """
    place, now = folder / "settings.json", json.loads(json.dumps(settings))
    if place.exists():
        before = json.loads(place.read_text())
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if changed:
            raise ConfigError(
                f"{folder} holds results of other settings ({', '.join(changed)}); use another "
                "--out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(now, indent=1))
