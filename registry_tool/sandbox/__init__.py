"""sandbox: untrusted models and parsers in a child process with limits."""
