"""imports: a corpus made of other tools' logs."""
