"""Flipside's method: games, objectives, penalties and the update rules that play them. Pure PyTorch.

No files, no config, no printing: it serves any training loop. From another repository install it as ``flipside``
(``pip install git+https://<this repository>``) and ``from flipside.rules import single_pass``; ``docs/dirac.py`` is a
whole script. Its modules, each knowing only those before it:

    objectives     what the players minimise, as functions of scores
    draws          randomness as a function
    games          sides, pairs, plays; the game of a GAN               domains   the games of domain adaptation
    augmentation   what the critic sees of images                      penalties   terms added to the objective
    passes         what the rules share                                rules       THE update rules
    accumulation   micro-batches                                       coupling    which critics a single pass serves
    probability    of augmentation, from step to step                  schedules   values over a run
    reversal       the plain gradient reversal layer                   compiled    slopes under torch.compile
    gradients      guided backpropagation, products with Jacobians
"""
