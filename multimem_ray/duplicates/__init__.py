"""Near-duplicates: samples that look or sound alike, as groups that ``design.group`` takes.

vectors     a vector of each sample, by modality, in files that memory need not hold
looks       vectors without any model: thumbnails and mel spectrograms, whole and cropped
sources     where vectors come from: stored embeddings, or shards
pairs       who is near whom: cells of similar vectors (faiss), compared one at a time
groups      from pairs to groups: a spanning forest, thresholds, an upper size
find        the whole, and the table that is written
"""
