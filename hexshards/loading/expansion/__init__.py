"""Expansion (decoding, augmentation): packed positions become planes, policies and values in a symmetry.

``expand`` says what a position becomes, in NumPy; ``expand_compiled`` and ``targets_compiled`` are the fast way to the
same bits.
``policy_targets`` chooses between the move that was played and the visits of a search, ``extra_columns`` brings what a
sample has beside board, policy and value. Nothing here is public but ``hexshards.loading``'s ``expand``.
"""
