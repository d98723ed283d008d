-- Who may sign in.
CREATE TABLE accounts (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- In lower case, as the backend writes it: one person, one account.
    email         text        NOT NULL CONSTRAINT accounts_email_key UNIQUE
                              CONSTRAINT accounts_email_lower CHECK (email = lower(email)),
    -- Argon2id in PHC string format: the parameters are part of it.
    password_hash text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
