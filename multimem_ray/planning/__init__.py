"""What a run would take, before anything is started; and afterwards, whether that was right.

work      what is to be read, trained and scored, estimated from a few samples
probe     what a sample costs, measured on a few of them in this process
estimate  hours, wall time and cost on a cluster, out of both
plan      all of it for a configuration
look      what is in some shards, before there is a configuration
timings   how long the stages of a run really took, and the comparison
"""
