"""What training changes and what changes it: players, optimisers, average, values at a step, processes, checkpoints."""
