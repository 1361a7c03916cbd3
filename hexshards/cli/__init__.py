"""The command ``hexshards``: one file for each group of commands, and what a person sees of them.

``app`` is the entry, ``dataset_commands`` and ``training_commands`` the commands, ``console`` what they share (exit
codes, errors in one line), ``display`` and the views bars, tables and lines. Private.
"""
