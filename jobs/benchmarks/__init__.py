"""Benchmarks: what the product does on this machine, beside other ways to do the same.

A benchmark is a module with a class ``Options`` and ``measure(options, folder) -> Figures``; what
is expected of its figures stands in ``thresholds.yaml``. See :mod:`jobs.benchmarks.runner`.
"""
