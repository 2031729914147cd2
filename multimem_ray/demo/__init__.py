"""A small four-modality data set, made by procedure, to see an audit work from end to end."""
