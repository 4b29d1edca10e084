"""How long does a save keep training waiting? In training steps of the digits and the CIFAR-10 SNGAN recipe.

    python benchmarks/checkpoint_stall.py                # both, about 10 minutes on 2 CPU cores
    python benchmarks/checkpoint_stall.py --recipe configs/digits.yaml --rounds 9

Steps with and without a save take turns (A B A B ...) on synthetic batches. A save that is written behind the training
stalls the loop by the copy to host memory; the same save written in the loop stalls it until everything lies on the disk.
The time of a step, of the copy, of the whole write, and how much slower the steps are beside which the writing goes on:
medians over the rounds. Prints a Markdown table; ``benchmarks/checkpoint_stall.md`` holds a committed one.
"""
