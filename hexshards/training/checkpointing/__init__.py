"""Checkpoints: one file of a run's whole state, written in one step, checked before it is trusted.

``checkpoints`` finds, restores, saves and retains those of a run; ``checkpoint_file`` writes and reads one;
``plain_values`` and ``schema`` say what may be in it; ``run_folder`` is where they lie. Private.
"""
