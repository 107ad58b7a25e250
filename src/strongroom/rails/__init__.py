"""Payment providers and bank rails. Sees only `kernel` and `outbound`: no database, no tenant, no key."""
