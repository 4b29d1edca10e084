"""Many runs: which ones a sweep consists of, how they are run, and how their results compare."""
