"""What a run found, in the forms that others read.

tables        CSV, JSON lines, Parquet: scored rows, streamed
card          Markdown: what was audited, how, with which result, and its limits
croissant     metadata for the Parquet file, with the vocabulary for responsible AI
folders       a folder for Hugging Face datasets, and one for FiftyOne
certificate   what reshard removed, by which rule, with hashes; certificate_check looks again
write         the one function that has them all
"""
