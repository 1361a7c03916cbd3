"""Selection of what an epoch draws from: a window over growing data, a limit per game, another share each epoch.

``replay_window`` says how many of the newest positions, ``newest`` which these are; ``game_ranks`` limits the positions
of a game; ``epoch_selection`` puts them on top of shards, source files and filters (``hexshards.dataset.filters``).
Nothing here is public but the options of ``hexshards.loader``.
"""
