"""Every sample of every shard, scored once by all reference models, on Ray Data.

pipeline        rows of work over a pool of actors, receipts to the driver
disaggregated   the same with decoding on other nodes than embedding
actor           the actor: a row of work at a time
shard           one shard: read, decode, views, bank, rows, failures
chunks          consecutive samples of a shard, decoded and seen from several sides
wire            a chunk on its way to another node
bank            all models in one process: a batch is decoded once and embedded by each
rows, failures  the columns of a file in scores/ and in errors/
commits         the commit log: what is done is told by files
parts           what is scored of a shard that is not committed yet
attempts        a shard that kills its process: find the sample, record it, go on
retry           what failed in a committed shard, tried again
held_out_plan   which samples are the held-out set
held_out        their mean vectors under each model
"""
