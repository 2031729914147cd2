"""What a run knows of single samples: by key, by URL, by content, or by a file that is like them.

find        keys, URLs and contents to scores, membership, duplicates; what is missed is counted
similar     samples that look, sound or are embedded like a file
"""
