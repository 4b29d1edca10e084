"""What a run is told: typed sections, loading, what identifies a run."""
