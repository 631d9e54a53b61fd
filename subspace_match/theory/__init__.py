"""What a match is, what holds of matches and what does not: Definition 1 to Lemma 18, literally."""
