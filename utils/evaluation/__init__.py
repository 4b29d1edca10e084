"""What is measured: feature spaces, distances, coverage, criteria without labels, records."""
