"""A golden run: small audits made once, whose scores, names and sums later code gives again."""
