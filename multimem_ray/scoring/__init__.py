"""Every sample of every shard, scored once by all reference models, on Ray Data.

pipeline         rows of work over a pool of actors, receipts to the driver
disaggregated    the same with decoding on other nodes than embedding
source           where what is scored comes from: shards and models, or stored embeddings
actor            a row of work at a time, and the commit
shard            one shard: read → decode → views → bank → rows and failures, into any output
chunks           consecutive samples of a shard, decoded and seen from several sides
bank, offload    all models in one process: a batch is decoded once and embedded by each
rows             the columns of a score, from the agreement matrices
poison           a shard that kills its process: find the sample, record it, go on
retry            what failed in a committed shard, tried again
held_out_plan    which samples are the held-out set
held_out         their embeddings under each model, a third output; who waits for whom
held_out_stats   their mean vectors and consistency
"""
