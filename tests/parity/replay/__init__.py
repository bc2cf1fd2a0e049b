"""The recorded steps on smtool's side: its loop, tasks and networks on what `given` makes."""
