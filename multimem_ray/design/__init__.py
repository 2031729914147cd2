"""Who trains on what: rules that any worker can evaluate, never lists.

Which models train on a sample, and whether it is held out, follows from keyed hashes of the
sample's key (or of its group). Nothing is indexed, so a thousand million samples cost nothing,
and no answer depends on shards, batches, order or retries.
"""

from multimem_ray.design.hashing import bits, seed_of, uniform
from multimem_ray.design.held_out import BalancedCap, HeldOutRule
from multimem_ray.design.make import make_design
from multimem_ray.design.membership import Candidate, ComplementaryHalves, Design, LeaveSubsetOut

__all__ = [
    "BalancedCap",
    "Candidate",
    "ComplementaryHalves",
    "Design",
    "HeldOutRule",
    "LeaveSubsetOut",
    "bits",
    "make_design",
    "seed_of",
    "uniform",
]
