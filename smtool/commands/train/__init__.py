"""`smtool train-ae` and `train-dit`: assemble, train, validate, save and report a run."""
