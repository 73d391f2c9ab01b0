"""What strangers send to every parser that takes it: no crash, no hang, bounded memory.

`python -m tests.fuzz` has atheris, of `requirements-fuzz.txt`, invent input for one target after
the other. What it finds is kept below `found/`, and the ordinary suite runs all of that through
the targets again.
"""
