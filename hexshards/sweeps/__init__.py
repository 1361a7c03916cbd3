"""Hyperparameter search: trials of a search space, each a run of its own, pruned and resumed.

``search_space`` is the file that says what is tried, ``trials`` the study (Optuna), ``sweep`` the job. Public:
``hexshards.sweep``.
"""
