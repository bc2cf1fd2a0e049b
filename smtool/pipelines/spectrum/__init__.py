"""`smtool spectrum`: the diffusability report."""
