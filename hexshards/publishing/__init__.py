"""Publish a dataset so that others find it, look at it and load it: a card, a preview and metadata beside its shards.

``preview`` makes a table of single positions out of a few blocks, as a Parquet file that viewers of datasets show;
``card`` is the README.md that the Hugging Face hub reads; ``croissant`` describes the files for catalogues; ``publish``
sends them, and the shards, the index last. Public: ``hexshards.publish``.
"""
