"""Proof by destruction: the whole system under senders, kills and bad peers, and an account of it.

The claim: an Instance that was acknowledged to its sender is at every destination that it belongs
to with the right bytes, or in the exception log, or held, whatever happened in between.
"""
