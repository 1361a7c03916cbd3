"""Interoperation: networks leave hexshards for programs that play, and hex_ai's users bring what is theirs.

``saved_network`` loads a trained network to ask it; ``export`` writes it in the formats of others, and
``hex_ai_checkpoint`` in hex_ai's own. Public: ``hexshards.load_network``, ``Network`` and ``export_network``.
"""
