"""Duplicates (deduplication): games and positions that are there more than once are told, and left out where asked.

``repeated_games`` and ``overlaps`` find what repeats before it is read, ``exact_overlap`` counts it and
``overlap_notes`` tells of it, ``same_games`` and ``count_games`` compare games by what is in them, ``dedupe_games`` and
``dedupe_positions`` keep each once. Nothing here is public.
"""
