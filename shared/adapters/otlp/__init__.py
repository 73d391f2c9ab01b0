"""What this process measures and does, sent to a collector by OTLP over HTTP."""
