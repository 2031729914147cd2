"""One self-contained HTML page about a run."""

from multimem_ray.report.write import write_report

__all__ = ["write_report"]
