"""What is measured: feature spaces, distances, coverage, selection without labels, records."""
