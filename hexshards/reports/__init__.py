"""What a dataset, a run or a machine is like, read back and drawn: reports, curves, plots, throughput.

``dataset_report`` makes the page of ``hexshards report``: ``sample`` reads a bounded part of a dataset, ``copies`` and
``source_files`` compare what is in it, ``verdicts`` say how it stands, ``figures`` and ``openings`` draw it, ``page``
is the HTML. ``history`` reads a run's ``metrics.jsonl``, ``panels`` say what there is to draw of it, which ``plots``,
``terminal_curves`` and ``run_figures`` do; ``runs`` makes a table of many, ``validations`` tells which of them can be
compared, ``throughput`` measures loading and training on this machine; ``evaluation`` measures a trained network on a
split. Public: ``hexshards.evaluate``, ``Evaluation``; the rest is used by ``hexshards report``, ``plot``, ``runs``,
``sweep`` and ``bench``.
"""
