"""`smtool train-ae` and `train-dit`: assembling a run, training it, watching it, saving it."""
