"""Embeddings in files: written by a run, or kept by a user who has neither shards nor models.

layout      names of files, columns and metadata
write       a run's shards under all of its models → Parquet, one file per shard and model
recorded    what such files say of design and held-out set
sets        what a user names → files of each model, their keys compared
blocks      rows of a file, or of arrays, a bounded number at a time
units       what is scored and committed at once: rows that stand alike in all models, or a bucket
join        files that do not stand alike: keys hashed into buckets on disk, bucket by bucket
agreement   the matrices of the metric from stored vectors, without copying them
stored      a unit's samples, checked, and scored
worker      the actor
"""
