"""The benchmarks, one after the other; see :mod:`jobs.benchmarks.runner`."""

from __future__ import annotations

from jobs.benchmarks import runner

if __name__ == "__main__":
    runner.main()
