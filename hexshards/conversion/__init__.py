"""Source files become a dataset: read, checked, shuffled globally by an external sort, written as shards.

``convert`` is the job; ``discovery`` finds the files, ``sources`` is what a converter of a format offers,
``read_sources`` reads and spills (``sorted_runs``), ``write_shards`` gathers. ``executors`` run the tasks here or on
Ray; ``memory``, ``disk`` and ``estimate`` say beforehand what is needed. Public: ``hexshards.convert``,
``ConvertSpec``, ``Report``, and ``sources`` for third parties' converters.
"""
