"""The method: lite self-training (LiST, arXiv 2110.06274) on a frozen masked language model.

Knows no Prefect. B batch, T tokens, D hidden, C classes, L layers, in every shape below this package.
"""
