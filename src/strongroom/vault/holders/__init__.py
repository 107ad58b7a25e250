"""Where root keys and customers' keys live: one contract, several holders."""
