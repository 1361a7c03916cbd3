"""The command ``hexshards``: one file for each group of commands, and what a person sees of them.

``app`` is the entry, ``dataset_commands``, ``training_commands`` and ``report_command`` the commands, ``command`` and
``console`` what they share (counts as people write them, exit codes, errors in one line). ``display`` prints and draws
progress bars; ``conversion_view``, ``dataset_view``, ``training_view``, ``evaluation_view``, ``runs_view`` and
``sweep_view`` say what.
Private.
"""
