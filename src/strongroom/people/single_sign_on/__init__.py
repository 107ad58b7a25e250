"""Single sign-on: an account's own provider vouches for its people."""
