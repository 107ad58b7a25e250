"""A payment provider for rehearsals: a process of its own, with books of its own, that misbehaves when asked to.

Nothing of strongroom's talks to it except over HTTPS, through `strongroom.rails.connectors.simulator`; it shares no
memory, file or key with the platform but the secret that the two agreed on. Its books say how often and how much money
moved, which is what the promise that an instruction is executed once is checked against.

Run it with `python -m strongroom.rails.simulator`. Its dialect and its magic words are in `docs/rails/simulator.md`.
"""
