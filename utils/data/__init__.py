"""What is trained on: samples, image files, sets, domains, their order, and randomness."""
