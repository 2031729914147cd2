"""The attack on a run, summed up from its scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from multimem_ray.results.attack import Attack, attack_words
from multimem_ray.results.summary import summarize
from multimem_ray.storage import Storage
from multimem_ray.verdict.attack import Population, attack_ratios
from tests.results.fake_run import fake_run
from tests.verdict.test_attack import halves


def audited(
    gain: float, models: int = 4, count: int = 4000
) -> tuple[Attack, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    member = halves(rng, count, models)
    cmc = rng.normal(1, 0.4, (count, 1)) + rng.normal(0, 0.1, (count, models)) + gain * member
    attack = Attack("complementary_halves", targeted=False)
    for half in (slice(0, count // 2), slice(count // 2, count)):
        attack.update(cmc[half], member[half].astype(float))
    return attack, cmc, member


def population(models: int = 4) -> Population:
    rng = np.random.default_rng(8)
    cmc = rng.normal(1, 0.4, (5000, 1)) + rng.normal(0, 0.1, (5000, models))
    return Population(cmc, halves(rng, 5000, models), paired=True, target=False)


def test_memorizing_models_are_found_out() -> None:
    attack, cmc, member = audited(0.3)
    found = attack.result(population())
    assert found is not None
    ratios = attack_ratios(cmc, member, paired=True, target=False)
    areas = [roc_auc_score(member[:, m], ratios[:, m]) for m in range(4)]
    assert found["auc"]["value"] == pytest.approx(np.mean(areas), abs=2e-3)
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    assert found["references"] == 2
    assert found["tpr_0.01"]["value"] > 0.2
    assert found["epsilon"]["value"] > 1.0
    words = " ".join(attack_words(found))
    assert "0.5 is guessing" in words
    assert "would be broken" in words


@pytest.mark.parametrize("models", [2, 4, 8])
def test_untrained_models_and_the_held_out_set_are_at_chance(models: int) -> None:
    found = audited(0.0, models)[0].result(population(models))
    assert found is not None
    assert 0.48 < found["auc"]["value"] < 0.52
    assert 0.48 < found["held_out"]["auc"]["value"] < 0.52
    assert found["epsilon"]["value"] == pytest.approx(0, abs=0.02)


def test_a_target_that_saw_everything_is_compared_with_the_held_out_set() -> None:
    rng = np.random.default_rng(9)
    member = np.hstack([halves(rng, 2000, 4), np.ones((2000, 1), bool)])
    cmc = rng.normal(1, 0.4, (2000, 1)) + rng.normal(0, 0.1, (2000, 5)) + 0.3 * member
    attack = Attack("complementary_halves", targeted=True)
    attack.update(cmc, member.astype(float))
    known = population(5 + 1)
    held = np.hstack([known.member[:, :4], np.zeros((5000, 1), bool)])
    found = attack.result(Population(known.cmc[:, :5], held, paired=True, target=True))
    assert found is not None
    assert (found["models"], found["references"], found["epsilon"]) == (1, 4, None)
    assert found["auc"]["value"] > 0.7


def test_a_run_tells_it(tmp_path: Path) -> None:
    found = summarize(fake_run(tmp_path).output, Storage())["attack"]
    assert found["auc"]["value"] > 0.6
    assert not found["held_out"]
