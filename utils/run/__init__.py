"""The folder of a run: what is logged, saved and shown, and the signals that stop it."""
