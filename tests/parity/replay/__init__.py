"""The recorded steps in smtool: its training loop, tasks and networks on the inputs of `given`."""
