"""Reference models, trained in banks on Ray Train: one pass over the data serves several models.

order     which shard, then which sample, comes when: the same for every bank
source    shards to decoded samples on Ray Data, membership decided before decoding
part      which samples a rank decodes, where several train a bank
split     what the ranks tell each other of what they decoded
cache     decoded shards on the node's disk, so that later epochs don't decode
stream    epochs of training samples, out of source and cache
optimizer learning rates, AdamW and SGD
gradients of a contrastive loss, of a whole batch or in micro-batches
reference one model: its steps, its losses, its checkpoint
bank      several models, each stepping on its own members
judged    what references of a mitigation think of the samples
regrouping: which samples a model treats otherwise, and how
prepared  a sample on its way to the models
held_out  retrieval among held-out samples, while training goes on
trackers  TensorBoard, MLflow, W&B
worker    what runs inside a Ray Train worker
memory    what a model needs in training
layout    how many models make a bank, and how many banks run at once
trainer   packs models into banks, runs them, skips what is done
"""
