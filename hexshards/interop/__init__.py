"""Interoperation: networks leave hexshards for programs that play, and hex_ai's users bring what is theirs.

``saved_network`` loads a trained network to ask it; ``export`` writes it in the formats of others, and
``hex_ai_checkpoint`` in hex_ai's own, as a hook too. ``hex_ai_metrics`` keeps hex_ai's books,
``hex_ai_trainer`` drives hex_ai's own trainer. Public: ``hexshards.load_network``, ``Network``, ``export_network``,
``HexAiTrainer``, ``HexAiCheckpoints`` and ``HexAiMetrics``.
"""
