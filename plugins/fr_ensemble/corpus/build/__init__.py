"""build: a corpus made of real encodes."""
