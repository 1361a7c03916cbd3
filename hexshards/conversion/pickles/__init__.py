"""Pickles read as data: nothing that a file names is ever imported or called.

``frames`` inflates and cuts the stream, ``machine`` runs the opcodes that data need, ``templates``, ``lookahead`` and
``scanner`` read what is alike at once. For converters of formats that are pickles.
"""
