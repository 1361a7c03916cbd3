"""Drawing: pictures and tables as SVG and HTML, made as trees of elements, so that no text becomes markup.

``svg`` makes elements, ``charts`` draws numbers and ``tables`` lists facts for a notebook. Nothing here knows Hex:
boards are drawn by ``hexshards.game.diagram``. Private.
"""
