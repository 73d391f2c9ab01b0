"""What comes of asking a provider; where it gives no answer, the reason stands in their place."""

from __future__ import annotations

from typing import Final

# Sure enough; a proposal below the threshold; "not known"; no term of the vocabulary.
SURE, UNSURE, ABSTAINED, DISCARDED = "sure", "unsure", "abstained", "discarded"
ANSWERS: Final = (SURE, UNSURE, ABSTAINED, DISCARDED)
