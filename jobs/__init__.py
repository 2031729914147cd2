"""What is run beside the command line: jobs for a cluster, benchmarks, experiments."""
