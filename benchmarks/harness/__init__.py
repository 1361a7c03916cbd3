"""What the benchmarks share: systems to compare, proved and timed in processes of their own, and their records."""
