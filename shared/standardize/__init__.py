"""Standard terms for what modalities and people typed: vocabularies, proposals, decisions."""
