"""Source files become a dataset: read, checked, shuffled globally by an external sort, written as shards.

``convert`` is the job, ``report`` what it tells; ``watch`` does it again and again, as files come to an ``inbox``,
and ``compact`` merges the small shards that this leaves.
``discovery`` finds the files, ``sources`` is what a converter of a format offers, ``read_sources`` reads,
``spill_sources`` spills what was read as sorted runs (``sorted_runs``), ``write_shards`` merges them. ``duplicates``
sees to what is there more than once. ``executors`` run the tasks here or on Ray; ``memory``, ``disk`` and ``estimate``
say beforehand what is needed. Public: ``hexshards.convert``, ``ConvertSpec``, ``Report``,
and ``sources`` for third parties' converters.
"""
