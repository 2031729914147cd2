"""Embeddings in files: written by a run, or kept by a user who has neither shards nor models.

layout     names of files, columns and metadata
recorded   what such files say of design and held-out set
files      rows of a file, or of arrays, a bounded number at a time
sets       what a user names → files of each model, their keys compared
units      what is scored and committed at once: rows that stand alike in all models, or a bucket
join       files that do not stand alike: keys hashed into buckets on disk, bucket by bucket
align      a unit's rows as all models have them
score      a unit's samples, checked, and scored
worker     the scoring actor, and the held-out set
open       what there is, and how it fits together: the run
source     stored embeddings in the place of shards and models
embed, actor, log   a run's shards under all of its models → Parquet, a file per shard and model
"""
