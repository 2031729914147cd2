"""Runs a job as a command: what a user can mend is one line, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console

from multimem_ray.errors import MultiMemError


def run(main: Callable[[], object]) -> None:
    """Run it; an error of ours ends it with status 1."""
    try:
        main()
    except MultiMemError as error:
        Console(stderr=True).print(f"error: {error}", markup=False)
        sys.exit(1)
