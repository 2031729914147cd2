"""Studies: many small audits, and what of their differences is more than chance."""
