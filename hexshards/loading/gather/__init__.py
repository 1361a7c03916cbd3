"""Gather: rows of columns that lie in several parts are copied to one place, in the order of a window.

``rows`` says what is copied, in NumPy; ``rows_compiled`` is the fast way to the same bytes. Nothing here is public.
"""
