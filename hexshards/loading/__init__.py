"""Batches from a dataset: order, shuffling, windows, workers, symmetries, for any number of ranks.

Shuffling is ``order`` (which position comes when, by arithmetic) carried out by ``epoch_plan`` and ``window``;
``window_reader``, ``shard_prefetch``, ``workers`` and ``buffers`` bring windows in, ``batching`` cuts batches,
``expansion`` makes planes of packed positions. ``shuffle_quality`` measures how well batches are mixed.

Public: ``hexshards.loader``, ``Loader``, ``LoaderSpec``, ``Batch``, ``hexshards.pipeline`` and
``decode_column``.
"""
