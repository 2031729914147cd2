"""Every sample of every shard, scored once by all reference models, on Ray Data.

held_out   which samples are the held-out set, and their mean vectors under each model
bank       all models in one process: a batch is decoded once and embedded by each
shard      one shard: read, decode, views, bank, rows, failures
rows       the columns of a score file
commits    the commit log: what is done is told by files
pipeline   shards over a pool of actors, receipts to the driver
"""
