"""Training in mini-epochs: train, validate, save, tell, stop or go on, and exact resume.

``orchestrator`` is the loop, made of ``stream`` (the batches of a mini-epoch), ``stop`` (when it ends),
``checkpointing`` (what is kept of it) and ``tracking`` (who is told what). ``steps`` is what one optimizer step is.
``run`` makes all of it from a ``TrainSpec``. Public: ``hexshards.train``, ``TrainSpec``, ``Trainer``,
``MiniEpochOrchestrator``, ``RunSettings`` and ``Hook``, whose events are in ``tracking.hooks``.
"""
