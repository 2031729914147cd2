"""What scores are worth, from all of them together: NumPy and SciPy, no torch, no I/O and no Ray.

    pairs         what each pair of models says of a sample
    moderation    standard errors and intervals that hold with few models
    shrinkage     the score that is expected of very many models, and how surely
    reliability   how far a ranking would repeat itself with other models
    forecast      what other numbers of models would tell
    lists         lists of samples with a known share of false ones
    attack        how well one can tell what a model was trained on, and the ε that disproves

Shapes: N samples, M models, P pairs of models.
"""
