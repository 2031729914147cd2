"""Reference models, trained in banks on Ray Train: one pass over the data serves several models.

trainer      packs models into banks, runs them, skips what is done
memory       what a model needs in training, and how many make a bank
worker       the training of one bank, in a Ray Train worker or without Ray
bank         several models over one stream of samples, each stepping on its own members
step         one optimization step: gradients in micro-batches, noise, clipping
train_state  one model: weights, optimizer, counters, checkpoint
stream       epochs of samples, the same for every bank and attempt
decode       shards to decoded samples, membership decided before decoding
cache        decoded shards on the node's disk, so that later epochs don't decode
callbacks    checkpoints, measurements, progress
epoch_log    ``history.jsonl``, written before each checkpoint
validation   retrieval among held-out samples, while training goes on
loggers      TensorBoard, MLflow, W&B

How samples are treated is told by the policies of :mod:`multimem_ray.mitigation.policy`.
"""
