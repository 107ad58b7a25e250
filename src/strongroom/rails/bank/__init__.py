"""One bank as a file rail: what it wants of files (`profile`), and a bank that answers them (`simulator`)."""
