"""Finding, reading and writing WebDataset shards, on a disk and in S3."""
