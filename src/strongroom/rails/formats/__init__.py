"""File formats of banks: bytes in, frozen values out, and the other way round. No input or output of any other kind.

`pain001` writes and reads payment orders, `pain002` reads a bank's answer to them, `camt` reads statements and
notifications; `text` is the character set that SEPA can carry.
"""
