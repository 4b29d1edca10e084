"""What a kind of game loads, builds, draws and measures: generation, adaptation, invariance."""
