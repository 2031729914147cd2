"""Reading what a run wrote: top samples, quantiles, selections, the summary, planted truth."""
