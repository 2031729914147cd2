"""Mitigation: training that memorizes less, measured so that the figure means what it says.

**A mitigation is a recipe.** A model trained with noise, without some samples or fine-tuned
embeds everything differently, held-out samples included; compared with a model of another recipe,
the difference measures the recipe. (A first prototype saw MultiMem rise from 0.12 to 1.34 that
way, where matched references saw it fall.) So the section ``mitigation`` of the configuration is a
property of the training of *all* models of the design: each one, whoever's reference it is,
chooses among its own members by the same rule and treats them in the same way. With complementary
halves, the model that did not see a sample is then a matched reference for the one that did,
for every sample and at no extra cost: MultiMem of a mitigated run is the MultiMem of its recipe,
and is compared with that of the run without, sample by sample.

Three figures stand side by side, see :mod:`multimem_ray.evaluation.mitigation`:

    matched     mean over mitigated models that saw a sample, minus mitigated ones that did not
    corrected   mitigated models that saw it minus plain ones that did not, each less its own level
                on the held-out set: cheap, for who has trained only one mitigated model
    unmatched   the same without the levels, as the papers have it; it measures the recipe

A sample that was left out of training is still a member of its model by the design: the mean over
all samples counts it with the little that is left of it. The mean over the samples that are still
trained on stands beside it; for removals by MultiMem itself, it is lower by the choice alone.

**What chooses.** ``references`` is the output of a finished audit. Its scores tell, for every
sample, how it looks to models that never saw it; the running model tells the rest. See
:mod:`multimem_ray.mitigation.choice` for choices and treatments.

policy            what a training is told about its samples, whoever chooses
choice            the choices of one model, and what becomes of what it chose
reference_scores  what an earlier audit knows of the samples, as training wants it

Many small trainings with seeds and paired tests: ``jobs/experiments/trials.py``.
"""
