-- Whoever puts public keys into a key is one of its makers from then on.
grant update (made_by) on api_keys to strongroom_app;
