"""What training costs, computed without training: operations counted on tensors without values, and arithmetic on them.

`counting` counts one turn of a task on the meta device, `cuda_autocast` gives it the dtypes of a GPU, `gpus` holds datasheets and
efficiencies, `run` and `storage` turn counts into hours and bytes, `result` is what `smtool inspect --cost` prints.
"""
