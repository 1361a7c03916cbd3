"""A dataset on disk: blocks in shards (tar files) and the index that lists them, read, checked and filtered.

``codec`` is a column as bytes, ``shard`` a tar, ``index`` the file ``index.json``, ``blocks`` what is read and
checked of a shard, ``filters`` the conditions of ``--where``, ``split`` train and val, ``facts`` what people are told
of it. Public: ``hexshards.read_index``, ``Index`` and ``hexshards.verify``.
"""
