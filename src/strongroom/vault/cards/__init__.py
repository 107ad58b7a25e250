"""The card vault: a process, a database and keys of its own, and the only place where a card number exists.

Nothing else of strongroom imports this package (`.importlinter`); other processes reach it over mutual TLS
(`strongroom.vault.card_client`), browsers and API clients over two public routes. `docs/cards.md` is its manual.

`intake` checks what comes in, `custody` keeps it, `codes` holds security codes in memory, `templates`, `scrubbing` and
`forwarding` take a number to a provider and bring back an answer without it, `transfers` hand cards over to another
vault; `doors` says who may ask for what, `listening` speaks HTTP over TLS.
"""
