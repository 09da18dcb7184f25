"""What a run's document says, for people and for machines. Pure functions of the document; only `terminal` prints."""
