"""Hex: the board, positions as packed columns, their symmetries and random games; no files, no torch.

``board`` has cells, sides and who connects; ``positions`` the columns of many positions; ``validation`` checks
positions as a source file states them, ``records`` games that are lists of moves; ``symmetry`` has the four pictures of
a position; ``diagram`` and ``diagram_svg`` draw boards. What a converter of a source format may use, beside
``hexshards.conversion.sources``.
Public: ``Positions``, ``Draft``, ``Reject`` and ``records.GameRecords`` for converters; the rest is private.
"""
