"""The demo: real Instances through the real system, and a check of all that it claims."""
