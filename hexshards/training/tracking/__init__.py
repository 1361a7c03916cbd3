"""Tracking (logging, callbacks): what a run tells while it trains, and to whom.

``hooks`` declares the events and ``Hook``, who hears them; ``events`` tells them in order; ``records`` are the lines
of ``metrics.jsonl``; ``stopwatch`` measures where the time goes; ``tensorboard_log`` is one such hook. Public:
``Hook`` and the events of ``hooks``.
"""
