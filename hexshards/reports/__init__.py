"""What a run or a machine has done, read back and drawn: history, curves in the terminal, plots, throughput.

``history`` reads ``metrics.jsonl``, ``terminal_curves`` and ``plots`` draw it, ``throughput`` measures loading and
training on this machine. Private; used by ``hexshards plot`` and ``hexshards bench``.
"""
