"""What is trained on: samples and their order, image files, data sets, domains, randomness."""
