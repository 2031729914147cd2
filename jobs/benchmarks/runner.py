"""Runs benchmarks by name, shows their figures, and says what fell short.

    python -m jobs.benchmarks [NAME …] [--quick] [--json F] [OPTION …]
    python -m jobs.benchmarks.scoring [--quick] [--json F] [OPTION …]

Without a name, all of them. An option goes to every benchmark that has it. The exit status is 1 if
a median missed its bound in ``thresholds.yaml``; with ``--quick``, which only shows that everything
runs, nothing is judged.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, field, fields
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from jobs import command
from jobs.benchmarks.thresholds import load_thresholds, shortfalls

NAMES = ("decoding", "feed", "consistency", "embeddings", "training", "scoring", "memory", "gpu")
_PACKAGES = ("ray", "torch", "numpy", "pyarrow", "av", "soundfile", "pillow")


def option(default: Any, about: str, *, quick: Any = None, choices: Sequence[str] = ()) -> Any:
    """A field of ``Options``: a number, a text, or a tuple of such with one as an example.

    Args:
        default: Of the benchmark.
        about: Said by ``--help``.
        quick: The value with ``--quick``; default: the same.
        choices: What a text may be.
    """
    quick = default if quick is None else quick
    return field(default=default, metadata={"help": about, "quick": quick, "choices": choices})


def main(*names: str) -> None:
    """Run the command line: benchmarks by name, or those that it begins with."""
    command.run(lambda: sys.exit(not run_command(sys.argv[1:], names)))


def run_command(arguments: Sequence[str], names: Sequence[str] = ()) -> bool:
    """Run what a command line says; returns whether every median that was judged holds."""
    own_command = bool(names)
    names = names or list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    parser = argparse.ArgumentParser(
        usage="python -m jobs.benchmarks [NAME …] [--quick] [--json F] [OPTION …]",
        description=f"Benchmarks: {', '.join(NAMES)}; each has its own --help.",
        add_help=not names,
    )
    parser.add_argument("--quick", action="store_true", help="the smallest form, not judged")
    parser.add_argument("--json", type=Path, help="file for all figures")
    known, others = parser.parse_known_args(arguments if own_command else arguments[len(names) :])
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    options, unused = {}, set(others)
    for name in names or _all_names():
        options[name], left = _parse(name, others, quick=known.quick)
        unused &= set(left)
    if unused:
        parser.error(f"{', '.join(options)}: no such option: {' '.join(sorted(unused))}")
    return run(options, judged=not known.quick, output=known.json)


def run(options: dict[str, Any], *, judged: bool = True, output: Path | None = None) -> bool:
    """Run benchmarks with their options.

    Args:
        options: Benchmark → its ``Options``.
        judged: Whether thresholds apply.
        output: File for all figures.

    Returns:
        Whether every median that was judged holds.
    """
    console, here = Console(soft_wrap=True, markup=False, highlight=False), machine()
    thresholds = load_thresholds() if judged else {}
    content: dict[str, Any] = {"machine": here, "benchmarks": {}, "short": []}
    for name, own in options.items():
        with tempfile.TemporaryDirectory(prefix=f"benchmark-{name}-") as folder:
            figures = _module(name).measure(own, Path(folder))
        console.print(figures.tables(name))
        content["benchmarks"][name] = {"options": asdict(own), "figures": figures.as_dict()}
        content["short"] += shortfalls(name, figures, thresholds, gpu=here["gpu"] is not None)
        if output is not None:
            # After each of them: hours may lie between the first and the last.
            output.write_text(json.dumps(content, indent=1), encoding="utf-8")
    for line in content["short"]:
        console.print(f"fell short: {line}")
    return not content["short"]


def _all_names() -> list[str]:
    """What runs where nothing is named: a kit for a GPU takes hours without one."""
    import torch

    return [name for name in NAMES if name != "gpu" or torch.cuda.is_available()]


def _parse(name: str, arguments: Sequence[str], *, quick: bool) -> tuple[Any, list[str]]:
    """The ``Options`` of a benchmark, and the arguments that it does not know."""
    module = _module(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m {module.__name__}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for each in fields(module.Options):
        example = each.default[:1] or ("",) if isinstance(each.default, tuple) else (each.default,)
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            default=each.metadata["quick"] if quick else each.default,
            type=type(example[0]),
            nargs="*" if isinstance(each.default, tuple) else None,
            choices=each.metadata["choices"] or None,
            help=each.metadata["help"],
        )
    parsed, left = parser.parse_known_args(arguments)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in vars(parsed).items()}
    return module.Options(**values), left


def _module(name: str) -> Any:
    return importlib.import_module(f"jobs.benchmarks.{name}")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    """None where the package is missing, as Ray is on some GPU machine."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
