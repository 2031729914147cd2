"""What the rest needs of Ray: a session, room on the cluster, counts of progress, metrics."""
