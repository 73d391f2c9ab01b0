"""A gateway on premises: it receives onto its own disk, and moves what it has to the cloud.

Reception asks nobody but this machine, so it works for as long as the disk has room, whatever the
link does. What the cloud has to say beforehand (the configuration) is kept on the disk too.
"""
