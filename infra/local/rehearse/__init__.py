"""The cloud's shape on one machine, with Google's own emulators: `axiom rehearse`."""
